"""F-beta of words: recall counts beta times as much as precision (van Rijsbergen 1979)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flipfast.errors import ConfigError
from flipfast.metrics.base import Metric, Values
from flipfast.metrics.word_f1 import overlap_f1


def f_beta(beta: float) -> Metric:
    """Make the metric for a beta above 0; with 1 it is word F1, bit for bit.

    Raises:
        ConfigError: beta is not a finite number above 0.
    """
    if not 0 < beta < float("inf"):
        raise ConfigError(f"beta must be a number above 0, not {beta}")
    square = beta * beta

    def score(predictions: Sequence[str], references: Sequence[str]) -> Values:
        _, precision, recall = overlap_f1(predictions, references).T
        below = square * precision + recall
        found = np.zeros(len(below))
        np.divide((1 + square) * precision * recall, below, out=found, where=below > 0)
        return found

    return score
