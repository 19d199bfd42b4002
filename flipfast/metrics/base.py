"""The type of a metric, and multiset overlap, which most metrics use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from flipfast.metrics.word_f1_py import scores_of_counts

Unit = TypeVar("Unit")
Values = npt.NDArray[np.float64]

# Maps N inferred and N true instructions to float64 (N,), higher for more similar pairs. A pair's
# value depends only on the pair (the encoder's last bits aside), not on the rest of the batch.
Metric = Callable[[Sequence[str], Sequence[str]], Values]


def f1_of_units(split: Callable[[str], Iterable[Unit]]) -> Metric:
    """Make an F1 metric on multisets of units, computed like word F1.

    Args:
        split: splits a text into its words, characters or tokens.
    """

    def score(predictions: Sequence[str], references: Sequence[str]) -> Values:
        return by_pair(lambda x, y: _f1(list(split(x)), list(split(y))), predictions, references)

    return score


def weighted_f1(
    split: Callable[[str], Iterable[Unit]], weights: Mapping[Unit, float], unknown: float
) -> Metric:
    """Make an F1 metric on multisets of weighted units.

    Args:
        split: splits a text into its units.
        weights: each at least 0.
        unknown: the weight of a unit not in `weights`.
    """

    def weight(units: Counter[Unit]) -> float:
        return sum(n * weights.get(unit, unknown) for unit, n in units.items())

    def f1(prediction: str, reference: str) -> float:
        predicted, referred = Counter(split(prediction)), Counter(split(reference))
        same = weight(predicted & referred)
        if same == 0:
            return 0.0
        precision, recall = same / weight(predicted), same / weight(referred)
        return 2 * precision * recall / (precision + recall)

    return lambda predictions, references: by_pair(f1, predictions, references)


def by_pair(
    value: Callable[[str, str], float], predictions: Sequence[str], references: Sequence[str]
) -> Values:
    """Compute the values of pairs one by one; float64 (N,)."""
    pairs = zip(predictions, references, strict=True)
    return np.array([value(*pair) for pair in pairs], dtype=np.float64)


def _f1(predicted: list[Unit], referred: list[Unit]) -> float:
    same = (Counter(predicted) & Counter(referred)).total()
    return scores_of_counts(same, len(predicted), len(referred))[0]
