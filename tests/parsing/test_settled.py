"""What is settled of a growing output stands in the instruction, whatever follows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest

from flipfast.metrics.word_f1_py import normalize
from flipfast.parsing import parse_plain, parse_robust
from flipfast.parsing.settled import Settled, SettledObject, SettledPlain

# What the parsers look for, and what could be taken for it.
PLAIN = [
    *("the", "The ", "inferred", "Inferred_", "original ", "likely", "user", "user's ", "prompt"),
    *("instruction", "Instruction:", " is", " was", ":", "*", "**", "_", "#", "\n", " ", "\t"),
    *("\u3000", "\x1c", "<think>", "</think>", "<answer>", "</answer>", "<", "thi", "nk>", "ans"),
    *("wer>", "/", "```", "`", "{", "[", '"', "'", "“", "”", "‘", "’", "What", "x", "Σ", "ΑΣ", "İ"),
    *("\u0301", "a", "foo", "river", "?", "é", "json", '{"INFERRED INSTRUCTION": "', '"}', "—"),
]
OPENINGS = [
    '{"INFERRED INSTRUCTION": "',
    '{"REASONING": "r r", "INFERRED INSTRUCTION": "',
    '```json\n{"inferred_instruction": "',
    ' <think>x</think>{"a":"b","Inferred Instructions":"',
    '{"INFERRED INSTRUCTION": "", "INFERRED INSTRUCTION": "',
    '{"instruction": "q", "inferred instruction": "',
    '{"REASONING": "{inferred instruction: x, \\"INFERRED INSTRUCTION\\": \\"y\\"',
    'So: {"INFERRED INSTRUCTION": "',
    "",
]
OBJECT = [
    *('"', '"', '"}', ",", '": "', "{", "}", " ", "\n", "\\n", '\\"', "\\", "\\u0041", "\\u3000"),
    *("\\ud83d", "\\ude00", "INFERRED INSTRUCTION", '"INFERRED INSTRUCTION": "', '"REASONING": "'),
    *("<", ">", "[", "]", "...", "foo", "bar ", "the", "Σ", "?", "—", "```", "</think>", "<think>"),
    *(
        '{"a": "b", "c": 1}',
        "\\frac",
        "\\nabla ",
        "\\to ",
        "\\tan",
        "C:\\Users\\new",
        "d:\\rx",
        "E:\\n",
    ),
    *('"""', " // x\n", "/*", "„", "：", "，", "=", "<reasoning>", "<inferred_instruction>"),
    *("'", "'inferred instruction': '", "“", "null", "1", "\\q", "\\x41", ' "ключ": ', "<answer>"),
]


def pieces(rng: random.Random, text: str) -> list[bytes]:
    """A text's bytes, cut anywhere."""
    data, cuts = text.encode(), [0]
    while cuts[-1] < len(data):
        cuts.append(cuts[-1] + rng.randint(1, 6))
    return [data[begin:end] for begin, end in pairwise(cuts)]


def settled_words(settled: Settled, parts: list[bytes]) -> Counter[str]:
    return Counter(word for part in parts for word in normalize(settled.feed(part)))


def check(
    make: Callable[[], Settled],
    parse: Callable[[str], tuple[str, str]],
    openings: list[str],
    vocabulary: list[str],
) -> None:
    rng = random.Random(5)
    n_settled = 0

    def write(longest: int) -> str:
        words = rng.choices(vocabulary, k=rng.randint(0, longest))
        return "".join(word + rng.choice(("", "", " ")) for word in words)

    for _ in range(6_000):
        text = rng.choice(openings) + write(8)
        words = settled_words(make(), pieces(rng, text))
        n_settled += words.total()
        for more in ("", write(9)):
            missing = words - Counter(normalize(parse(text + more)[0]))
            assert not missing, (text, more, missing)
    assert n_settled > 1_000


@pytest.mark.slow
def test_plain_words_stay() -> None:
    check(SettledPlain, lambda text: parse_plain(text, think_open=False), [""], PLAIN)


@pytest.mark.slow
def test_words_of_an_object_stay() -> None:
    check(SettledObject, parse_robust, OPENINGS, OBJECT)


def test_a_think_block_of_the_prompt_unsettles_all() -> None:
    with pytest.raises(AssertionError):
        check(SettledPlain, parse_plain, [""], PLAIN)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("Name two rivers in Fra", "name two rivers in"),
        ("Name", ""),
        ("Name\ntwo\n", "name two"),
        ('  "Name **two** riv', "name two"),
        ("**Inferred instruction:** Name two ", "name two"),
        ("The user's prompt\nName two ", "name two"),
        ("Instruction : Is the prompt: no ", "no"),  # all of these may be in a label
        ("Thesaurus: the likely ", "thesaurus likely"),
        ("<answer> Name two</answer> rivers ", "name two rivers"),
        ("Name two <think>rivers and ", "name two"),
        ("Name what </think> does ", "name what does"),
        ("“Name two rivers ", ""),
        ("Instruction: ‘Name two rivers ", ""),
        ("```\nName two rivers ", ""),
        ('{"INFERRED INSTRUCTION": "Name two rivers ', ""),
        ("[Name two rivers ", ""),
        ("<think>Name two rivers ", ""),
    ],
)
def test_what_is_settled_of_a_plain_output(output: str, words: str) -> None:
    for size in (1, 3, 100):
        parts = [output.encode()[at : at + size] for at in range(0, len(output.encode()), size)]
        assert settled_words(SettledPlain(), parts) == Counter(words.split())


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ('{"REASONING": "It names two ", "INFERRED INSTRUCTION": "Name two riv', "name two"),
        ('{"INFERRED INSTRUCTION": "Name\\n\\"two\\" \\u0072ivers in Fra', "name two rivers in"),
        ('{"INFERRED INSTRUCTION": "Name two rivers", "REASONING": "for the ', "name two"),
        ('{"INFERRED INSTRUCTION": "… Name two rivers ', "… name two rivers"),
        ('{"INFERRED INSTRUCTION": "… ', ""),
        ('{"INFERRED INSTRUCTION": "<two rivers ', ""),
        ('{"INFERRED INSTRUCTION": "[two rivers ', ""),
        ('{"INFERRED INSTRUCTION": ["Name two ', ""),
        ('{"instruction": "Name two ', ""),
        ('So: {"INFERRED INSTRUCTION": "Name two ', ""),
    ],
)
def test_what_is_settled_of_an_object(output: str, words: str) -> None:
    for size in (1, 3):
        parts = [output.encode()[at : at + size] for at in range(0, len(output.encode()), size)]
        assert settled_words(SettledObject(), parts) == Counter(words.split())


@pytest.mark.parametrize("make", [SettledPlain, SettledObject])
def test_bytes_that_are_no_text_settle_nothing_more(make: Callable[[], Settled]) -> None:
    opening = b'{"INFERRED INSTRUCTION": "' if make is SettledObject else b""
    words = settled_words(make(), [opening, b"Name two ", b"\xff\xfe riv", b"ers in Fra", b"nce "])
    assert words == Counter(["name", "two"])


def test_a_character_may_come_in_parts() -> None:
    assert settled_words(SettledPlain(), [b"caf", b"\xc3", b"\xa9", b" "]) == Counter(["café"])
