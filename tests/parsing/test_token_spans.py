"""What the automata decide is what the parsers say, for every text and every way to split it."""

import gzip
import itertools
import json
import random

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

pytest.importorskip("triton")

from flipfast import ConfigError, extract_instruction
from flipfast.metrics.token_bytes import token_bytes
from flipfast.metrics.word_f1_py import normalize
from flipfast.parsing.clean_outputs import clean_outputs
from flipfast.parsing.token_spans import span_automaton
from flipfast_kernels.spans import EMPTY, FOUND, UNDECIDED, find_spans_ref

PARSERS = ["plain", "robust", "reference"]
AUTOMATA = {parser: clean_outputs(parser) for parser in PARSERS}
MOVES = {parser: AUTOMATA[parser].moves.tolist() for parser in PARSERS}
ONE_LINE = '{"REASONING": "The text \\"x\\"\\nsays.", "INFERRED INSTRUCTION": "What is an x?"}'
PRETTY = json.dumps(json.loads(ONE_LINE), indent=2)
# Forms whose decision the reward's speed rests on.
CLEAN = {
    "plain": [
        "What is an x?",
        " \n What is an x?\n",
        '"What is an x?"',
        "*What* is an x?",
        "User: what is an x?",
        "The original question: what is an x?",
        "Instruction manuals: what makes a good one?",
        "Prompted by a friend: why?",
        "Is x < y, or <b>x<b> y?",
        "one\n\ntwo: Café “x”",
        "42",
        "?!",
    ],
    "robust": [
        ONE_LINE,
        PRETTY,
        PRETTY.replace("\n", "\r\n"),
        f"```json\n{PRETTY}\n```\n",
        f"```{ONE_LINE}```",
        f"```\n{PRETTY}",
        '{"INFERRED INSTRUCTION":"Say \\"x\\" and\\/or <think>, in 你好."}',
        '{"INFERRED INSTRUCTION": "what?", "REASONING": "café \\\\"}',
        '{"reasoning": "", "Inferred_Instruction": " é what?"}',
    ],
    "reference": [
        ONE_LINE,
        f"\n{ONE_LINE}\n",
        f"```json{ONE_LINE}```",
        f"``` {ONE_LINE} ```",
        '{"inferred_instruction": "x < y", "reasoning": "café"}',
        '{"Inferred_Instruction": "what?"}',
    ],
}
UNDECIDABLE = {
    "plain": [
        "Instruction: x",
        "**The user's prompt was:** x",
        "## inferred instruction\nx",
        "THE LIKELY PROMPT WAS: x",
        "instruction_is\nx",
        '""',
        "“x”",
        "\u3000“x”",
        "l\u0131kely",
        "The l\u0131kely prompt: x",
        "<think>a</think>x",
        "x <answer>",
        "```\nx\n```",
        "`x`",
        ONE_LINE,
    ],
    "robust": [
        "What is x?",
        ONE_LINE + " Bye!",
        ONE_LINE + "```",
        ONE_LINE[:-1],
        ONE_LINE[:-2],
        "<think>\n</think>" + ONE_LINE,
        '{"INFERRED INSTRUCTION": ""}',
        '{"INFERRED INSTRUCTION": "\u3000"}',
        '{"INFERRED INSTRUCTION": "a\\nb"}',
        '{"INFERRED INSTRUCTION": "a\nb"}',
        '{"INFERRED INSTRUCTION": "a", "INFERRED INSTRUCTION": "b"}',
        '{"INFERRED INSTRUCTION": ["a"]}',
    ],
    "reference": [
        PRETTY,
        f"```json\n{ONE_LINE}\n```",
        "<answer>" + ONE_LINE,
        '{"Inferred Instruction": "a"}',
        '{"INFERRED INSTRUCTION": "  "}',
        '{"INFERRED INSTRUCTION": "a </think> b"}',
        '{"INFERRED INSTRUCTION": "a \\\\x"}',
    ],
}
# What the parsers react to, and what only looks like it.
PIECES = {
    "plain": [
        *("instruction", "Prompt", "the ", "The_", "inferred ", "user's ", " is", "u\u017fer "),
        *(*' :\n\x1c*"', "'", "`", "```", "{", "<", "<think>", "</think>", "<answer>", "t", "/"),
        *("\u3000", "\u201c", "\u201d", "\u2018", "\u2019", "\u0131nstruction", "é", "x", "?"),
    ],
    "robust": [
        *("{", '{"REASONING": "', '", "', '"INFERRED INSTRUCTION": "', '"inferred_instruction":"'),
        *('"}', '"reasoning": "r", ', "```", "```json", "\n", " ", ",", '"', ":", "}", "x", "\\"),
        *(
            "\\n",
            '\\"',
            "\u3000",
            "é",
            '"instruction": "y"',
            "<think>",
            "</think>",
            "\t",
            "[",
            "\x0b",
            "\\frac",
            "C:\\\\new",
            "//\n",
            "=",
            '"""',
            "<inferred_instruction>",
        ),
    ],
}
PIECES["reference"] = [*PIECES["robust"], "<answer>", "<", "/", "t", "assistant", "\r\n"]
# Bytes that keep each state alive, and those of them that leave it.
LETTERS = [*range(128), *b"\xc2\x85\xe2\x80\x9c\xe3\xc5\xbf\xff"]
OPTIONS = {
    parser: [
        ([c for c in LETTERS if row[c]], [c for c in LETTERS if row[c] not in (0, state)])
        for state, row in enumerate(moves)
    ]
    for parser, moves in MOVES.items()
}
BROKEN = [b"\xe2", b"\x80", b"\xff", b"\xe3\x80", b"\xed\xa0\x80", b"\xf0\x9f"]


def walk(parser: str, data: bytes) -> tuple[int, int, int]:
    """Begin, end and status of some bytes, one after the other through the byte automaton."""
    automaton, moves = AUTOMATA[parser], MOVES[parser]
    state, begin, end = 1, 0, 0
    for at, byte in enumerate(data):
        after = moves[state][byte]
        if state < automaton.first_inside <= after:
            begin = at + 1
        if state < automaton.first_after <= after:
            end = at
        state = after
    status = automaton.results[state]
    end = end if state >= automaton.first_after else len(data)
    return (begin, end, status) if status == FOUND else (0, 0, status)


def check(parser: str, data: bytes, span: tuple[int, int, int]) -> int:
    """Hold a span to what the parser says about the text; returns its status."""
    begin, end, status = span
    text = data.decode("utf-8", "replace")
    for decoded in {text, text.removeprefix(" ")} if status != UNDECIDED else ():
        found, said = extract_instruction(decoded, parser)
        if status == EMPTY:
            assert (found, said) == ("", "empty"), data
        else:
            words = normalize(data[begin:end].decode("utf-8", "replace"))
            assert (normalize(found), said) == (words, "ok"), (data, begin, end)
    return status


@pytest.mark.parametrize("parser", PARSERS)
def test_clean_forms_are_decided(parser):
    for text in CLEAN[parser]:
        assert check(parser, text.encode(), walk(parser, text.encode())) == FOUND, text
    for text in ("", " ", " \n\r\t"):
        assert check(parser, text.encode(), walk(parser, text.encode())) == EMPTY, text


@pytest.mark.parametrize("parser", PARSERS)
def test_other_forms_are_left_to_the_parser(parser):
    for text in UNDECIDABLE[parser]:
        assert walk(parser, text.encode()) == (0, 0, UNDECIDED), text


@pytest.mark.parametrize("parser", PARSERS)
def test_all_short_texts_of_dangerous_pieces(parser):
    pieces = [piece.encode() for piece in PIECES[parser]]
    for n in (1, 2, 3):
        for chosen in itertools.product(pieces, repeat=n):
            data = b"".join(chosen)
            check(parser, data, walk(parser, data))


def mutated(rng, parser):
    """A clean output with a few pieces put in, bytes left out, or its end cut off."""
    data = bytearray(rng.choice(CLEAN[parser]).encode())
    pieces = [piece.encode() for piece in PIECES[parser]] + BROKEN
    for _ in range(rng.randint(0, 3)):
        at = rng.randint(0, len(data))
        data[at : at + rng.choice([0, 0, 0, 1, 2, 5])] = rng.choice(pieces)
    return bytes(data)[: rng.choice([None, None, None, rng.randint(0, len(data))])]


def wandered(rng, parser):
    """Bytes that keep to the automaton's living states, and leave the one they are in often."""
    state, data = 1, bytearray()
    for _ in range(rng.randint(0, 120)):
        alive, leaving = OPTIONS[parser][state]
        if not alive:
            break
        data.append(rng.choice(leaving if leaving and rng.random() < 0.6 else alive))
        state = MOVES[parser][state][data[-1]]
    return bytes(data)


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("make", [mutated, wandered])
def test_random_texts(parser, make):
    rng = random.Random(7)
    texts = [make(rng, parser) for _ in range(4000)]
    statuses = [check(parser, data, walk(parser, data)) for data in texts]
    assert statuses.count(FOUND) > 400


def spans_of(automaton, rows):
    """(begin, end, status) of rows of ids, by the kernel's reference."""
    lens = torch.tensor([len(row) for row in rows], dtype=torch.int32)
    ids = torch.full((len(rows), int(lens.max())), -1)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = torch.tensor(row)
    spans = find_spans_ref(ids, lens, automaton)
    return list(zip(*(edge.tolist() for edge in spans), strict=True))


@pytest.mark.parametrize("parser", PARSERS)
def test_every_split_into_tokens_gives_the_bytes_result(parser):
    rng = random.Random(11)
    texts = [mutated(rng, parser) for _ in range(300)]
    texts += [text.encode() for text in CLEAN[parser] + UNDECIDABLE[parser]] * 2
    ids, rows, expected = {b"": 0, None: 1}, [], []
    for data in texts:
        cuts = sorted(rng.choices(range(len(data) + 1), k=rng.randint(0, len(data))))
        edges = list(itertools.pairwise([0, *cuts, len(data)]))
        rows.append([ids.setdefault(data[a:b], len(ids)) for a, b in edges])
        begin, end, status = walk(parser, data)
        # One token with the whole value and both its quotes in it is left to the parser.
        whole = any(a < begin and end < b for a, b in edges)
        expected.append((0, 0, UNDECIDED) if whole else (begin, end, status))
    assert spans_of(span_automaton(list(ids), parser), rows) == expected
    assert sum(status != UNDECIDED for *_, status in expected) > 60


@pytest.mark.parametrize("parser", PARSERS)
def test_tokens_of_unknown_bytes_and_of_none(parser):
    tokens = [*(bytes((c,)) for c in range(256)), b"", None, b" " * 2047, b" " * 2048]
    automaton = span_automaton(tokens, parser)
    text = list(CLEAN[parser][0].encode())
    begin, end, status = walk(parser, bytes(text))
    skipped, unknown, long, too_long = range(256, 260)
    rows = [[skipped, *text, skipped], [*text, unknown], [unknown, *text], [long, *text]]
    spans = spans_of(automaton, [*rows, [too_long, *text], [skipped], [unknown]])
    shifted = (begin + 2047 if parser != "plain" else 0, end + 2047, status)
    nothing = (0, 0, UNDECIDED)
    assert spans == [
        *((begin, end, status), nothing, nothing, shifted, nothing),
        *((0, 0, EMPTY), nothing),
    ]


def test_an_edge_far_behind_in_a_token_is_left_to_the_parser():
    for spaces, status in ((100, FOUND), (120, UNDECIDED)):
        first = b"{" + b" " * spaces + b'"INFERRED INSTRUCTION":"'
        automaton = span_automaton([first, b'What?"}'], "robust")
        assert spans_of(automaton, [[0, 1]])[0][2] == status


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return tokenizer, {"initial_alphabet": alphabet, "special_tokens": ["<|end|>"]}


def byte_fallback():
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    return tokenizer, {"special_tokens": ["<unk>", "<|end|>", *fallback], "limit_alphabet": 60}


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_tokenizers(make):
    raw, options = make()
    trainer = trainers.BpeTrainer(vocab_size=700, show_progress=False, **options)
    texts = [text for parser in PARSERS for text in CLEAN[parser] + UNDECIDABLE[parser]]
    raw.train_from_iterator(texts * 3, trainer)
    loaded = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>")
    tokens = token_bytes(loaded)
    for parser in PARSERS:
        rows = [loaded.encode(text, add_special_tokens=False) for text in texts]
        rows = [[*row, loaded.eos_token_id] for row in rows]
        statuses = []
        for row, span in zip(rows, spans_of(span_automaton(tokens, parser), rows), strict=True):
            data = b"".join(tokens[i] or b"" for i in row)
            statuses.append(check(parser, data, span))
            decoded = loaded.decode(row, skip_special_tokens=True)
            assert data.decode("utf-8", "replace") in (decoded, " " + decoded)
        assert statuses.count(FOUND) >= len(CLEAN[parser])


@pytest.fixture
def golden(shared_file):
    path = shared_file("golden/extraction_golden.jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("parser", PARSERS)
def test_recorded_outputs(parser, golden):
    found = 0
    for row in golden:
        data = row["model_output"].encode("utf-8", "replace")
        found += check(parser, data, walk(parser, data)) == FOUND
    assert found > 60


def test_recorded_instructions_are_decided(golden):
    """All that the automata leave to the parsers of real instructions in a clean form."""
    for instruction in {row["instruction"] for row in golden}:
        plain = instruction.encode()
        tag = any(tag in instruction for tag in ("<t", "<a", "</"))
        if instruction.isascii() and not tag:
            assert check("plain", plain, walk("plain", plain)) == FOUND, instruction
        output = json.dumps({"REASONING": instruction, "INFERRED INSTRUCTION": instruction})
        for parser in ("robust", "reference"):
            status = check(parser, output.encode(), walk(parser, output.encode()))
            strange = parser == "reference" and (tag or "\\\\" in output)
            if instruction.isascii() and instruction.isprintable() and not strange:
                assert status == FOUND, output


def test_a_vocabulary_of_another_kind_is_refused():
    with pytest.raises(ConfigError, match=r"'strict'.*plain, robust, reference"):
        span_automaton([b"a"], "strict")
    with pytest.raises(ConfigError, match=r"token_bytes is \[\]"):
        span_automaton([], "plain")
