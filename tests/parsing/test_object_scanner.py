"""Where the instruction of a growing output is closed, and that nothing behind it matters."""

import gzip
import itertools
import json

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from flipfast import extract_instruction
from flipfast._core import ObjectScanner
from flipfast.parsing.keys import GENERIC, key_rank

BEGINNING = '{"REASONING": "r", "INFERRED INSTRUCTION": "What is x?"'
# Each with the bytes that are read when its value is known to be closed.
CLOSED = [
    (BEGINNING + "}", ""),
    (BEGINNING + "\r\n\t }", "```"),
    (BEGINNING + ', "NOTE":', ' "n"}'),
    (BEGINNING + ' , "inferred instruction" :', ' "y"}'),
    ('{"INFERRED INSTRUCTION":"What is x?","REASONING":', '"r"}'),
    ('{"Inferred-Instuction": "What is x?"}', "\nBye!"),
    ('{"INFERRED INSTRUCTION": "What\\u0020is x\\u003F"}', ""),
    ('{"instruction": "no", "instruction": "neither", "inferredInstruction": "What is x?"}', ""),
    ("```json\n" + BEGINNING + "}", "\n```"),
    ("``` " + BEGINNING + "}", "}"),
    (" \n```Json" + BEGINNING + "}", ""),
    ("<think>\nr {</thi</think>\n" + BEGINNING + "}", "<think>"),
    ("<think>r</think><think></think>```" + BEGINNING + "}", "</think>"),
]
DEAD = [
    "Sure! " + BEGINNING + "}",
    "[" + BEGINNING + "}",
    "{" + BEGINNING + "}",
    "{}",
    "<answer>" + BEGINNING + "}",
    "<think>r</think>\n\x0b" + BEGINNING + "}",
    "``" + BEGINNING + "}",
    "````" + BEGINNING + "}",
    "```jsonc\n" + BEGINNING + "}",
    "```js" + BEGINNING + "}",
    BEGINNING + ",}",
    BEGINNING + ', "":',
    BEGINNING + ', "it\'s":',
    BEGINNING + ', "a\\u0020b":',
    BEGINNING + ', "é":',
    BEGINNING + ', "' + "x" * 61 + '":',
    BEGINNING + ', "and": so "on"}'.replace(":", ""),
    BEGINNING + " it said}",
    BEGINNING + ' "NOTE": "n"}',
    BEGINNING.replace("r", 'an "r"') + "}",
    BEGINNING.replace('"r"', "1") + "}",
    BEGINNING.replace('"What is x?"', "null") + "}",
    BEGINNING.replace("What", "\\What") + "}",
    BEGINNING.replace("What", "\\u12g4") + "}",
    BEGINNING.replace("What", "\n") + "}",
    BEGINNING.replace("INFERRED ", "") + "}",
    *(
        BEGINNING.replace("What is x?", shown) + "}"
        for shown in ("", " ", "...", "…", "_?", "\\u2026\\n", " <the instruction>", "[x y] ")
    ),
]
OPEN = [
    "",
    "\n",
    "<think>" + BEGINNING + "}",
    "```json",
    BEGINNING,
    BEGINNING + ",",
    BEGINNING + ', "NOTE"',
    BEGINNING[:-1] + '\\"}',
]
NO_FORMAT = ["<a> b", "<a <b>", "[a] [b]", "[a", "<>x", "é", "\\u4f60", "\U00020000", "a_", "[a>"]
# What the grammar turns on, and a few letters for it to be turned on in.
PIECES = [
    *"{}\",:\\<>`' \n\tax_.é…",
    *('", "', '": "', '"}', '"INFERRED INSTRUCTION": "', '"inferred_instruction":', "</think>"),
    *("<think>", "```", "```json", "\\n", "\\u00e9", "\\ud83d", "\ud83d", "\x00", "...", "<x>"),
    *('{"INFERRED INSTRUCTION": "no"}', '{"instruction": "b"}', ', "REASONING": "', "Answer:"),
    *('{"a": "b", "c": 1}', "\\frac", "\\nabla", "C:\\Users\\new", '\\"', "// c\n", "/*", "„", "“"),
    *("：", "，", "=", '"""', "<reasoning>", "</reasoning>", "<inferred_instruction>", "\n", "\t"),
]
piece = st.sampled_from(PIECES) | st.text(max_size=3)
noise = st.lists(piece, max_size=8).map("".join)
lead = st.sampled_from(["", "", "\n", "```json\n", "<think>a</think>", "<think>", "Sure: "])
string = st.lists(piece, max_size=4).map(lambda pieces: json.dumps("a" + "".join(pieces)))
value = string | string | string | noise.map(lambda text: f'"{text}"')
key = st.sampled_from(["INFERRED INSTRUCTION", "Inferred_Instruction", "REASONING", "instruction"])
member = st.tuples(key, value).map(lambda pair: f'"{pair[0]}": {pair[1]}')
members = st.lists(member, min_size=1, max_size=3).map(", ".join)
outputs = st.tuples(lead, members, noise).map(lambda parts: f"{parts[0]}{{{parts[1]}}}{parts[2]}")


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def closing_byte(data: bytes) -> int | None:
    """How many bytes are read when the value is closed; None where that never happens."""
    scanner = ObjectScanner()
    for n_read, byte in enumerate(data, start=1):
        scanner.feed(bytes([byte]))
        if scanner.closed:
            return n_read
    return None


@pytest.mark.parametrize(("start", "rest"), CLOSED)
def test_closed(start, rest):
    data = encode(start)
    assert closing_byte(data) == len(data)
    scanner = ObjectScanner()
    scanner.feed(data + encode(rest))
    assert scanner.closed
    assert not scanner.dead
    value = data[scanner.start : scanner.end].decode()
    assert json.loads(f'"{value}"') == "What is x?"
    assert extract_instruction(start + rest) == ("What is x?", "ok")


@pytest.mark.parametrize("text", DEAD)
def test_dead(text):
    scanner = ObjectScanner()
    scanner.feed(encode(text))
    assert (scanner.closed, scanner.dead) == (False, True)


@pytest.mark.parametrize("value", ["null", "[", "x", '"'])
def test_where_the_value_begins(value):
    opening = encode('{"INFERRED INSTRUCTION": ')
    scanner = ObjectScanner()
    scanner.feed(opening)
    assert scanner.start == -1
    scanner.feed(encode(value))
    assert scanner.start == (len(opening) + 1 if value == '"' else -1)


@pytest.mark.parametrize("text", OPEN)
def test_still_open(text):
    scanner = ObjectScanner()
    scanner.feed(encode(text))
    assert (scanner.closed, scanner.dead) == (False, False)


@pytest.mark.parametrize("value", NO_FORMAT)
def test_a_value_with_letters_counts(value):
    data = encode(f'{{"INFERRED INSTRUCTION": "{value}"}}')
    assert closing_byte(data) == len(data)


def test_where_the_value_lies():
    scanner = ObjectScanner()
    places = []
    for letter in ('{"REASONING": "r", "INFERRED INSTRUCTION": ', '"', "Why", '"', " ", "}"):
        scanner.feed(letter.encode())
        places.append((scanner.start, scanner.end, scanner.closed))
    assert places[0] == (-1, -1, False)
    assert places[1:3] == [(44, -1, False)] * 2
    assert places[3:] == [(44, 47, False), (44, 47, False), (44, 47, True)]


@pytest.mark.slow
@settings(max_examples=300)
@given(outputs | noise, st.data())
def test_every_cutting_closes_at_the_same_place(text, data):
    output = encode(text)
    expected = closing_byte(output)
    cuts = data.draw(st.lists(st.integers(0, len(output)), max_size=6).map(sorted))
    scanner = ObjectScanner()
    for first, last in itertools.pairwise([0, *cuts, len(output)]):
        scanner.feed(output[first:last])
        assert scanner.closed == (expected is not None and expected <= last)


# Many of the outputs close nothing: how many is a matter of luck.
@pytest.mark.slow
@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(outputs, noise | outputs)
def test_nothing_behind_the_closing_matters(text, rest):
    output = encode(text)
    n_read = closing_byte(output)
    assume(n_read is not None)
    start = output[:n_read].decode("utf-8", "surrogatepass")
    found, status = extract_instruction(start)
    assert status in ("ok", "recovered")  # recovered: \frac is valid, but no form feed
    assert found.strip()
    assert extract_instruction(text) == (found, status)
    assert extract_instruction(start + rest) == (found, status)


@pytest.mark.slow
@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(["REASONING", "NOTE", "instruction", "INFERRED INSTRUCTION"]),
        st.lists(piece).map("".join),
        min_size=1,
    ),
    st.booleans(),
    st.sampled_from([None, 0, 2]),
)
def test_the_value_is_that_of_json(record, ascii_only, indent):
    text = json.dumps(record, ensure_ascii=ascii_only, indent=indent)
    data = encode(text)
    scanner = ObjectScanner()
    scanner.feed(data)
    value = record.get("INFERRED INSTRUCTION", "")
    if any(c.isascii() and c.isalnum() for c in value) and not set(value) & set("<[]>"):
        assert scanner.closed
    assert not scanner.closed or extract_instruction(text) == (value, "ok")
    if scanner.closed:
        raw = data[scanner.start : scanner.end].decode("utf-8", "surrogatepass")
        assert json.loads(f'"{raw}"') == value


@pytest.mark.slow
@settings(max_examples=500)
@given(
    st.lists(
        st.sampled_from(["inf", "INFERRED", "ered", "instruc", "Instruct", "ion", "ions", "tion"])
        | st.sampled_from("abinrstu-_ 1."),
        min_size=1,
    ).map("".join)
)
def test_keys_are_those_of_the_parser(key):
    assume(len(key) <= 60)
    rank = key_rank(key)
    closed = closing_byte(encode(f'{{"{key}": "x y"}}')) is not None
    assert closed == (rank is not None and rank < GENERIC)


@given(st.binary(max_size=40))
def test_any_bytes_are_read(data):
    scanner = ObjectScanner()
    scanner.feed(b'{"INFERRED INSTRUCTION": "' + data.replace(b'"', b"") + b'a"}' + data)
    scanner.feed(data)
    assert isinstance(scanner.closed, bool)


def test_a_broken_character_is_no_letter():
    for broken in (
        b"\xe2\x80",
        b"\xff",
        b"\xf8\x90\x80\x80",
        b"\xc1\x81",
        b"\xe0\x81\x81",
        b"\xc3",
    ):
        data = b'{"INFERRED INSTRUCTION": "' + broken + b'"}'
        assert closing_byte(data) is None


def test_a_megabyte_is_read():
    for text in ("<think>" + "<" * 1_000_000, BEGINNING[:-1] + "x\\n" * 300_000, " " * 1_000_000):
        scanner = ObjectScanner()
        scanner.feed(text.encode())
        assert not scanner.closed


def test_recorded_outputs_give_the_same_when_they_are_stopped(shared_file):
    path = shared_file("golden/extraction_golden.jsonl.gz")
    n_stopped = n_saved = 0
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            text = json.loads(line)["model_output"]
            n_read = closing_byte(encode(text))
            if n_read is None:
                continue
            start = encode(text)[:n_read].decode("utf-8", "surrogatepass")
            assert extract_instruction(start) == extract_instruction(text)
            n_stopped += 1
            n_saved += start != text
    assert n_stopped > 500
    assert n_saved > 200
