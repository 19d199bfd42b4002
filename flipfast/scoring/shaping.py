"""Transforms and combines rewards; None, a row without a reward, stays None."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, log1p
from statistics import fmean, pstdev
from typing import Any

from flipfast.scores import check_lengths, members_of_groups

Rewards = Sequence[float | None]


def log_sigmoid(rewards: Rewards) -> list[float | None]:
    """Return ln(1 / (1 + e^-r)) of each reward: at most 0, and flat where it is high already."""
    return [None if r is None else min(r, 0.0) - log1p(exp(-abs(r))) for r in rewards]


def group_normalized(rewards: Rewards, groups: int | Sequence[Any]) -> list[float | None]:
    """Subtract each group's mean from its rewards and divide by its population standard deviation.

    Args:
        rewards: one per row.
        groups: as for ScoreBatch.zero_variance.

    Returns:
        0.0 throughout a group of equal rewards.

    Raises:
        InputError: the groups do not match the rewards.
    """

    def normalized(found: list[float]) -> list[float]:
        mean, deviation = fmean(found), pstdev(found)
        if len(set(found)) == 1 or deviation == 0:  # rounding may move the mean of equal numbers
            return [0.0] * len(found)
        return [(reward - mean) / deviation for reward in found]

    return _by_group(rewards, groups, normalized)


def ranks(rewards: Rewards, groups: int | Sequence[Any]) -> list[float | None]:
    """Return the share of its group's other rows that a row beats, with ties counted as half.

    Args:
        rewards: one per row.
        groups: as for ScoreBatch.zero_variance.

    Returns:
        In [0, 1]; 0.5 for a row alone in its group.

    Raises:
        InputError: the groups do not match the rewards.
    """

    def ranked(found: list[float]) -> list[float]:
        if len(found) == 1:
            return [0.5]
        beaten = [sum((x < r) + 0.5 * (x == r) for x in found) - 0.5 for r in found]
        return [n / (len(found) - 1) for n in beaten]

    return _by_group(rewards, groups, ranked)


def weighted_sum(columns: Sequence[Rewards], weights: Sequence[float]) -> list[float | None]:
    """Return the weighted sum of several rewards of the same rows.

    Raises:
        InputError: there is not one weight per column, or the columns differ in length.
    """
    check_lengths(columns=columns, weights=weights)
    return _by_row(columns, lambda row: sum(w * r for w, r in zip(weights, row, strict=True)))


def minimum(columns: Sequence[Rewards]) -> list[float | None]:
    """Return the lowest of several rewards of the same rows.

    Raises:
        InputError: the columns differ in length.
    """
    return _by_row(columns, min)


def logical_and(columns: Sequence[Rewards], least: Sequence[float]) -> list[float | None]:
    """Return 1.0 where each of several rewards reaches its bound, else 0.0.

    Raises:
        InputError: there is not one bound per column, or the columns differ in length.
    """
    check_lengths(columns=columns, least=least)
    return _by_row(columns, lambda row: float(all(map(float.__ge__, map(float, row), least))))


def _by_row(columns: Sequence[Rewards], join: Callable[[list[float]], float]) -> list[float | None]:
    check_lengths(**{f"columns[{i}]": column for i, column in enumerate(columns)})
    rows = zip(*columns, strict=True)
    return [None if None in row else join([r for r in row if r is not None]) for row in rows]


def _by_group(
    rewards: Rewards, groups: int | Sequence[Any], change: Callable[[list[float]], list[float]]
) -> list[float | None]:
    found: list[float | None] = []
    for members in members_of_groups(rewards, groups):
        known = [reward for reward in members if reward is not None]
        changed = iter(change(known) if known else [])
        found += [None if reward is None else next(changed) for reward in members]
    return found
