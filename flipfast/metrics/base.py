"""What a metric is, and multiset overlap, which most of them are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from flipfast.metrics.word_f1_py import scores_of_counts

Unit = TypeVar("Unit")
Values = npt.NDArray[np.float64]

# From N inferred and N true instructions to float64 (N,), higher for more alike. A pair's value
# depends on nothing but the pair, whatever else is in the batch.
Metric = Callable[[Sequence[str], Sequence[str]], Values]


def f1_of_units(split: Callable[[str], Iterable[Unit]]) -> Metric:
    """F1 of the multisets of what texts are split into, as word F1 computes it.

    Args:
        split: a text to its words, characters or tokens.
    """

    def score(predictions: Sequence[str], references: Sequence[str]) -> Values:
        return by_pair(lambda x, y: _f1(list(split(x)), list(split(y))), predictions, references)

    return score


def weighted_f1(
    split: Callable[[str], Iterable[Unit]], weights: Mapping[Unit, float], unknown: float
) -> Metric:
    """F1 of multisets in which each unit counts with its weight.

    Args:
        split: a text to its units.
        weights: at least 0 each.
        unknown: the weight of a unit that has none.
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
    """The values of pairs, one after the other; float64 (N,)."""
    pairs = zip(predictions, references, strict=True)
    return np.array([value(*pair) for pair in pairs], dtype=np.float64)


def _f1(predicted: list[Unit], referred: list[Unit]) -> float:
    same = (Counter(predicted) & Counter(referred)).total()
    return scores_of_counts(same, len(predicted), len(referred))[0]
