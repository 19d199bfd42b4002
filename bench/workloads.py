"""Groups of a workload: from the user's file, from real text, or made with its lengths."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from bench.models import EMBEDDED
from bench.sizes import INSTRUCTION_WORDS, RESPONSE_WORDS, TEXT_SHARES, Workload
from flipfast.rows import open_rows, read_row

Groups = list[tuple[str, list[str]]]


def read_groups(path: Path) -> Groups:
    """Instructions and their responses from a file.

    Args:
        path: of rows as `flipfast score` takes them; rows of one instruction that stand next to
            each other are a group.

    Raises:
        ValueError: a row is broken; the message has its line.
    """
    with open_rows(path) as found:
        rows = [read_row(raw, number, "instruction") for number, raw in found]
    for row in rows:
        if row.error is not None:
            raise ValueError(f"{path}, line {row.line}: {row.error}")
    parts = itertools.groupby(rows, key=lambda row: row.instruction)
    return [(x, [text for row in part for text in row.responses]) for x, part in parts]


def made_groups(n_groups: int, n_responses: int, seed: int = 0) -> Groups:
    """Texts of English words at random, as long as AlpacaEval's instructions and responses."""
    rng = random.Random(seed)
    words = _words()

    def text(n_words: Sequence[int]) -> str:
        return " ".join(rng.choices(words, k=round(np.interp(rng.random(), TEXT_SHARES, n_words))))

    return [
        (text(INSTRUCTION_WORDS), [text(RESPONSE_WORDS) for _ in range(n_responses)])
        for _ in range(n_groups)
    ]


def take(workload: Workload, source: Groups | None, *, n_more: int = 0) -> Groups:
    """The groups of a workload, and n_more to warm up with behind them.

    Of the source, again from the start where it has too few, with a number before the texts; groups
    with too few responses stay so. Without a source they are made.
    """
    n = workload.n_groups + n_more
    if source is None:
        groups = made_groups(n, workload.n_responses)
    else:
        groups = list(itertools.islice(_endless(source, workload.n_responses), n))
    if not workload.response_tokens:
        return groups
    lengths = itertools.cycle(workload.response_tokens)
    texts = [text for _, responses in groups for text in responses]
    rng = random.Random(0)
    return [
        (x, [_lengthened(text, next(lengths), texts, rng) for text in responses])
        for x, responses in groups
    ]


def columns(groups: Groups) -> tuple[list[str], list[str]]:
    """Instructions and responses, a place a row, as `FlipReward.score` takes them."""
    pairs = [(instruction, text) for instruction, responses in groups for text in responses]
    return [instruction for instruction, _ in pairs], [text for _, text in pairs]


def _endless(source: Groups, n_responses: int) -> Iterator[tuple[str, list[str]]]:
    """Groups of that size at most; from the second turn on each text begins with the turn."""
    for turn in itertools.count(1):
        mark = f"{turn}. " if turn > 1 else ""
        for instruction, responses in source:
            yield f"{mark}{instruction}", [f"{mark}{text}" for text in responses[:n_responses]]


def _lengthened(text: str, n_tokens: int, texts: list[str], rng: random.Random) -> str:
    """A text with others behind it, cut at a number of the embedded model's tokens."""
    tokenizer = Tokenizer.from_file(str(EMBEDDED / "tokenizer.json"))
    while len(found := tokenizer.encode(text, add_special_tokens=False)) < n_tokens:
        text = f"{text}\n\n{rng.choice(texts)}"
    return text[: found.offsets[n_tokens - 1][1]]


def _words() -> list[str]:
    """Words that are one token of the embedded model, the more common ones first."""
    vocabulary = json.loads((EMBEDDED / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    found = (token[1:] for token in sorted(vocabulary, key=vocabulary.get) if token[0] == "Ġ")
    return [word for word in found if word.isascii() and word.isalpha()]
