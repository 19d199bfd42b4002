"""Rewards changed and put together; None, a row without a reward, stays None."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, log1p
from statistics import fmean, pstdev
from typing import Any

from flipfast.scores import check_lengths, members_of_groups

Rewards = Sequence[float | None]


def log_sigmoid(rewards: Rewards) -> list[float | None]:
    """ln(1 / (1 + e^-r)) of each: at most 0, and flat where a reward is high already."""
    return [None if r is None else min(r, 0.0) - log1p(exp(-abs(r))) for r in rewards]


def group_normalized(rewards: Rewards, groups: int | Sequence[Any]) -> list[float | None]:
    """Each reward less its group's mean, over the group's standard deviation (of the population).

    Args:
        rewards: one a row.
        groups: as for ScoreBatch.zero_variance.

    Returns:
        0.0 throughout a group of equal rewards.

    Raises:
        InputError: the groups do not go with the rewards.
    """

    def normalized(found: list[float]) -> list[float]:
        mean, deviation = fmean(found), pstdev(found)
        if len(set(found)) == 1 or deviation == 0:  # the mean of equal numbers may be another one
            return [0.0] * len(found)
        return [(reward - mean) / deviation for reward in found]

    return _by_group(rewards, groups, normalized)


def ranks(rewards: Rewards, groups: int | Sequence[Any]) -> list[float | None]:
    """The share of its group's other rows that a row beats, a tie counting half.

    Args:
        rewards: one a row.
        groups: as for ScoreBatch.zero_variance.

    Returns:
        In [0, 1]; 0.5 for a row alone in its group.

    Raises:
        InputError: the groups do not go with the rewards.
    """

    def ranked(found: list[float]) -> list[float]:
        if len(found) == 1:
            return [0.5]
        beaten = [sum((x < r) + 0.5 * (x == r) for x in found) - 0.5 for r in found]
        return [n / (len(found) - 1) for n in beaten]

    return _by_group(rewards, groups, ranked)


def weighted_sum(columns: Sequence[Rewards], weights: Sequence[float]) -> list[float | None]:
    """The sum of several rewards of the same rows, each times its weight.

    Raises:
        InputError: not a weight for each column, or columns of different lengths.
    """
    check_lengths(columns=columns, weights=weights)
    return _by_row(columns, lambda row: sum(w * r for w, r in zip(weights, row, strict=True)))


def minimum(columns: Sequence[Rewards]) -> list[float | None]:
    """The lowest of several rewards of the same rows.

    Raises:
        InputError: columns of different lengths.
    """
    return _by_row(columns, min)


def logical_and(columns: Sequence[Rewards], least: Sequence[float]) -> list[float | None]:
    """1.0 where each of several rewards is at least so high, else 0.0.

    Raises:
        InputError: not a bound for each column, or columns of different lengths.
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
