"""Writes what the C++ tests of the text core take from Python: `python -m tests.cpp.make_cases`."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from pathlib import Path

from flipfast.metrics.word_f1_py import normalize, word_f1
from flipfast_kernels.word_hash import hash_bytes

FOLDER = Path(__file__).with_name("cases")
# Letters whose lower case is another one, white space and digits beyond ASCII, controls, marks
# beside articles, surrogates, the ends of the internal encodings and of those of UTF-8.
ODD = [
    *"\t\n\x00\x07\x1c\x1f\x7f\x80\x85\xa0\xff\u0100\u2028\u3000\ufeff\ufffd",
    *"_-.,'\"!?()<[\\",
    *"ΣσςİıßÀéªº²½\u0307\u0301K—–…’·。「中文字٣Ⅷ①",
    *"\ud83d\udc00\udfff\u07ff\u0800\uffff\U00010000\U0001d518\U0001f600\U0010ffff",
]
WORDS = ["a", "an", "the", "A", "The", "then", "ban", "soil", "soil", "internationalization", "i"]


def literal(data: str | bytes) -> str:
    """A string_view of C++. What is not plain gets a piece of its own: an escape has no end."""
    prefix, codes = ("", data) if isinstance(data, bytes) else ("U", map(ord, data))
    pieces = [""]
    for code in codes:
        if 0x20 <= code < 0x7F:
            pieces[-1] += f"\\{code:c}" if chr(code) in '"\\?' else chr(code)
        else:
            pieces += [f"\\x{code:x}", ""]
    return " ".join(f'{prefix}"{piece}"' for piece in pieces if piece or len(pieces) == 1) + "sv"


def listed(items: list[object]) -> str:
    return "{" + ", ".join(map(str, items)) + "}"


def table(declaration: str, rows: list[list[object]]) -> str:
    lines = "".join(f"    {listed(row)},\n" for row in rows)
    return f"// Made by make_cases.py.\n{declaration}[] = {{\n{lines}}};\n"


def random_text(rng: random.Random) -> str:
    pieces = rng.choices(WORDS + ODD + [" "] * 30, k=rng.choice([1, 5, 20, 60]))
    text = "".join(pieces)
    # Only Python itself gets these two right: the core is given the text in lower case.
    return text.lower() if set(text) & {"Σ", "İ"} else text


def texts(rng: random.Random) -> list[str]:
    stem = "w" * 40
    return [
        "",
        "What is THE soil-degradation?",
        "a_the an'a",
        "x—a—y",
        "a\x00b the\x1cend",
        "the\u3000an\u00a0A",
        "A quick brown fox: an example of the words, and of the the marks.",
        " ".join(stem[:n] + end for n in (1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40) for end in "xy"),
        *(random_text(rng) for _ in range(50)),
    ]


def text_row(text: str) -> list[object]:
    words = [word.encode("utf-8", "surrogatepass") for word in normalize(text)]
    counts = sorted(Counter(map(hash_bytes, words)).items())
    return [
        literal(text),
        listed([literal(word) for word in words]),
        listed([f"INT64_C({value})" for value, _ in counts]),
        listed([n for _, n in counts]),
    ]


def pair_row(prediction: str, reference: str) -> list[object]:
    return [
        literal(prediction),
        literal(reference),
        *(value.hex() for value in word_f1(prediction, reference)),
    ]


def output_row(rng: random.Random) -> list[object]:
    def dumped(text: str) -> bytes:
        found = json.dumps(text, ensure_ascii=rng.random() < 0.5)
        return found.encode("utf-8", "surrogatepass")

    def string() -> str:
        return "b" + "".join(rng.choices([*WORDS, *ODD, "{", "}", ":", "</think>", "```"], k=9))

    data = rng.choice([b"", b"\n", b"```json\n", b" ```", b"<think>a {</th</think>\n"]) + b"{"
    for _ in range(rng.randrange(3)):
        data += dumped(rng.choice(["REASONING", "NOTE", "instruction"])) + b": "
        data += dumped(string()) + b", "
    key = rng.choice(["INFERRED INSTRUCTION", "Inferred_Instruction", "inferredInstruction"])
    data += dumped(key) + rng.choice([b":", b" : "])
    start = len(data) + 1
    data += dumped(string())
    end = len(data) - 1
    data += rng.choice([b"}", b"\n}", b', "NOTE":'])
    return [literal(data), start, end]


def files() -> dict[str, str]:
    """Name and content of each file."""
    rng = random.Random(5)
    cases = texts(rng)
    mixed = [" ".join(rng.sample(text.split(" "), text.count(" ") + 1)) for text in cases]
    pairs = [*zip(cases, mixed, strict=True), *itertools.pairwise(cases)]
    outputs = [output_row(rng) for _ in range(60)]
    known = {*map(chr, range(128)), *ODD, *"".join(ODD).lower()}
    characters = [
        [ord(c), *(str(x).lower() for x in (c.isalnum(), c.isspace())), ord(c.lower()[0])]
        for c in sorted(known)
    ]
    return {
        "characters.inc": table("inline constexpr Character kCharacters", characters),
        "texts.inc": table("const TextCase kTexts", [text_row(text) for text in cases])
        + table("const PairCase kPairs", [pair_row(*pair) for pair in pairs]).split("\n", 1)[1],
        "outputs.inc": table("constexpr OutputCase kOutputs", outputs),
    }


if __name__ == "__main__":
    for name, content in files().items():
        (FOLDER / name).write_text(content)
