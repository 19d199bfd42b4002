"""Accuracy between responses of equal length, by regression."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_RIDGE = 0.01  # on both coefficients: keeps them finite for a rater that wins every pair
_CLOSE = 1e-4  # step size in a coefficient below which steps shrink quadratically, until rounding
_ROUNDING = 1e-12  # relative to the loss: a step that raises it by less may still be a good one
_MOST_STEPS = 100  # a handful suffice


def length_controlled_accuracy(
    wins: Sequence[float],
    length_differences: Sequence[float],
    weights: Sequence[float],
) -> float:
    """Estimate the chance that the chosen response of a pair wins if both have the same length.

    Length control as in AlpacaEval (Dubois et al. 2024, arXiv 2404.04475): a logistic regression
    of the wins on an intercept and on tanh(difference / its standard deviation), evaluated at
    difference 0. If chosen responses are never the shorter ones, or never the longer ones, length
    and quality cannot be separated, and the odds are split between both; if all pairs differ by the
    same length, nothing is controlled.

    Args:
        wins: of the chosen response of each pair: 1, 0, or 0.5 for a tie.
        length_differences: its length minus that of the rejected one, in any unit.
        weights: of each pair, at least 0.

    Returns:
        In (0, 1); 0.5 is chance.
    """
    differences = np.asarray(length_differences, dtype=np.float64)
    spread = float(differences.std())
    lengths = np.tanh(differences / spread) if spread else np.zeros_like(differences)
    columns = np.stack([np.ones_like(differences), lengths], axis=1)
    fitted = _fit(columns, np.asarray(wins, np.float64), np.asarray(weights, np.float64))
    return float(_logistic(fitted[0]))


def _fit(columns: Floats, wins: Floats, weights: Floats) -> Floats:
    """Minimize the convex loss by Newton's method, halving each step until it leads downhill.

    Iterates until steps stop shrinking, so the result is exact up to rounding.
    """
    at = np.zeros(columns.shape[1])
    loss, size = _loss(at, columns, wins, weights), np.inf
    for _ in range(_MOST_STEPS):
        chances = _logistic(columns @ at)
        slope = columns.T @ (weights * (chances - wins)) + _RIDGE * at
        curve = (columns.T * (weights * chances * (1 - chances))) @ columns
        step = np.linalg.solve(curve + _RIDGE * np.eye(len(at)), slope)
        before, size = size, float(np.abs(step).max())
        if size < _CLOSE and size >= before / 2:
            break
        while (after := _loss(at - step, columns, wins, weights)) > loss * (1 + _ROUNDING):
            step = step / 2
        at, loss = at - step, after
    return at


def _loss(at: Floats, columns: Floats, wins: Floats, weights: Floats) -> float:
    odds = columns @ at
    return float(weights @ (np.logaddexp(0, odds) - wins * odds) + _RIDGE * (at @ at) / 2)


def _logistic(odds: Floats) -> Floats:
    result: Floats = np.exp(-np.logaddexp(0, -odds))
    return result
