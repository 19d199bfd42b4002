"""Finds what a response copies from its instruction, word for word."""

from __future__ import annotations

from collections import defaultdict
from math import ceil

from flipfast.metrics.content import visible
from flipfast.metrics.word_f1_py import normalize
from flipfast.metrics.word_spans import word_spans

MARK = "[...]"  # replaces a copy
_LEAST, _MOST = 3, 8

Run = tuple[int, int]  # word indices: start, end (exclusive)


def shortest_copy(n_words: int) -> int:
    """Return how many consecutive words count as copied, for an instruction of `n_words` words.

    Two thirds of the instruction, since an honest answer repeats half of a short question ("The
    capital of France is ..."), but at least 3 words, about the length of a topic's name, and at
    most 8, which rarely match by chance. An instruction of fewer than 3 words cannot be copied.
    """
    return min(_MOST, max(_LEAST, ceil(n_words * 2 / 3)))


def copied_share(instruction: str, response: str) -> float:
    """Return the share of the instruction's words that the response copied; see `mask_copies`."""
    return _copies(_words(instruction), _words(response))[1]


def mask_copies(instruction: str, response: str) -> tuple[str, float]:
    """Replace what the response copied from the instruction with a mark.

    A copy is a run of at least `shortest_copy` words that also occurs in the instruction. Words are
    those of word F1, without invisible characters.

    Returns:
        text: the response, unchanged if nothing is copied; else without invisible characters and
            with MARK in place of each maximal run.
        share: of the instruction's words that are in a copied run, in [0, 1].
    """
    shown = visible(response)
    places = word_spans(shown)
    runs, share = _copies(_words(instruction), [word for word, _, _ in places])
    if not runs:
        return response, share
    pieces, end = [], 0
    for first, behind in runs:
        pieces += [shown[end : places[first][1]], MARK]
        end = places[behind - 1][2]
    return "".join([*pieces, shown[end:]]), share


def _words(text: str) -> list[str]:
    return normalize(visible(text))


def _copies(instruction: list[str], response: list[str]) -> tuple[list[Run], float]:
    """Find the copied runs of the response, and the share of the instruction's words in them."""
    n = shortest_copy(len(instruction))
    places: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for at in range(len(instruction) - n + 1):
        places[tuple(instruction[at : at + n])].append(at)
    runs: list[Run] = []
    found: set[tuple[str, ...]] = set()
    for at in range(len(response) - n + 1):
        words = tuple(response[at : at + n])
        if words not in places:
            continue
        found.add(words)
        if runs and at <= runs[-1][1]:
            runs[-1] = (runs[-1][0], at + n)
        else:
            runs.append((at, at + n))
    covered = {at + k for words in found for at in places[words] for k in range(n)}
    return runs, len(covered) / max(len(instruction), 1)
