"""ROUGE-L: F1 of the longest common subsequence of words (Lin 2004)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flipfast.metrics.base import Values, by_pair
from flipfast.metrics.word_f1_py import scores_of_counts

_WORD = re.compile(r"[a-z0-9]+")


def rouge_l(predictions: Sequence[str], references: Sequence[str]) -> Values:
    """Compute ROUGE-L F1 of words: lowercased runs of ASCII letters and digits, as in rouge-score.

    Args:
        predictions: N inferred instructions.
        references: N true instructions.

    Returns:
        float64 (N,) in [0, 1]; 0.0 if either has no words.
    """
    return by_pair(_score, predictions, references)


def _score(prediction: str, reference: str) -> float:
    predicted, referred = _WORD.findall(prediction.lower()), _WORD.findall(reference.lower())
    common = common_subsequence(predicted, referred)
    return scores_of_counts(common, len(predicted), len(referred))[0]


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, with table rows as big integers.

    Method: Hyyro 2004, Bit-parallel LCS-length computation revisited.
    """
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    every = (1 << len(a)) - 1
    row = every  # a zero bit where the length grows
    for word in b:
        matches = row & places.get(word, 0)
        row = (row + matches | row - matches) & every
    return len(a) - row.bit_count()
