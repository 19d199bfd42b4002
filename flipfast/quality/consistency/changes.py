"""How rewards of the same responses change from one run to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean

import numpy as np

from flipfast.errors import InputError
from flipfast.quality.agreement import Agreement, Groups, agreement


@dataclass(frozen=True)
class Run:
    """The rewards of one way of scoring.

    Attributes:
        name: of the way of scoring.
        rewards: of each group's responses, None for a failure.
        mean_reward: over the responses that have one; None if none has.
        n_failed: responses without a reward.
    """

    name: str
    rewards: list[list[float | None]]
    mean_reward: float | None
    n_failed: int

    @classmethod
    def of(cls, name: str, rewards: list[list[float | None]]) -> Run:
        """Make the run with these rewards."""
        found = list(chain.from_iterable(rewards))
        known = [reward for reward in found if reward is not None]
        return cls(name, rewards, fmean(known) if known else None, len(found) - len(known))


@dataclass(frozen=True)
class RankFlips:
    """Pairs of a group's responses that two runs put in opposite orders.

    Attributes:
        n_pairs: pairs of responses of one group that neither run ties: both responses have a
            reward in both runs, and the two differ in each.
        n_flipped: those of them that the two runs order oppositely.
        share: n_flipped / n_pairs, which is (1 - G) / 2 with G the gamma of Goodman and Kruskal
            (1954), pooled over groups; None if there are no pairs.
    """

    n_pairs: int
    n_flipped: int
    share: float | None

    @classmethod
    def of(cls, n_pairs: int, n_flipped: int) -> RankFlips:
        """Make it from the counts."""
        return cls(n_pairs, n_flipped, n_flipped / n_pairs if n_pairs else None)


@dataclass(frozen=True)
class Change:
    """The differences between two runs; None where undefined.

    Attributes:
        first, second: names of the runs.
        agreement: of their ranks; see Agreement for how failed responses count.
        flips: pairs of responses in opposite orders.
        n_both: responses that have a reward in both. The fields below leave out the others.
        bit_equal: share of rewards with the same 64 bits.
        mean_difference: mean absolute difference of the rewards.
    """

    first: str
    second: str
    agreement: Agreement
    flips: RankFlips
    n_both: int
    bit_equal: float | None
    mean_difference: float | None


@dataclass(frozen=True)
class Comparison:
    """Several ways to score the same groups.

    Attributes:
        runs: one per way of scoring.
        left_out: the ways that could not be run, and why.
        changes: between pairs of runs.
    """

    runs: list[Run]
    left_out: dict[str, str]
    changes: list[Change]


def rank_flips(first: Groups, second: Groups) -> RankFlips:
    """Count the pairs of responses within a group that two rewards put in opposite orders.

    Args:
        first: groups of rewards, of any sizes; None for a failure.
        second: the same responses' rewards, in the same order.

    Raises:
        InputError: the two differ in the number of groups, or of responses in a group.
    """
    n_pairs = n_flipped = 0
    for both in _known(first, second):
        above = (both[:, None] > both).astype(np.int8) - (both[:, None] < both)
        same_way = np.triu(above.prod(axis=2))  # 1: the same order, -1: opposite, 0: a tie
        n_pairs += int(np.count_nonzero(same_way))
        n_flipped += int(np.count_nonzero(same_way < 0))
    return RankFlips.of(n_pairs, n_flipped)


def change(first: Run, second: Run) -> Change:
    """Compare two runs over the same groups.

    Raises:
        InputError: they differ in the number of groups, or of responses in a group.
        MissingDependencyError: scipy is not installed.
    """
    pairs = np.concatenate([np.empty((0, 2)), *_known(first.rewards, second.rewards)])
    bits = pairs.view(np.int64)  # tells 0.0 from -0.0
    differences = abs(pairs[:, 0] - pairs[:, 1])
    return Change(
        first.name,
        second.name,
        agreement(first.rewards, second.rewards),
        rank_flips(first.rewards, second.rewards),
        n_both=len(pairs),
        bit_equal=float(np.mean(bits[:, 0] == bits[:, 1])) if len(pairs) else None,
        mean_difference=float(np.mean(differences)) if len(pairs) else None,
    )


def _known(first: Groups, second: Groups) -> list[np.ndarray]:
    """Return for each group float64 (n, 2): the rewards of the responses that have both."""
    sizes = [[len(group) for group in groups] for groups in (first, second)]
    if sizes[0] != sizes[1]:
        raise InputError(f"groups of {sizes[0]} and of {sizes[1]} responses are not the same ones")
    return [_both(a, b) for a, b in zip(first, second, strict=True)]


def _both(a: Sequence[float | None], b: Sequence[float | None]) -> np.ndarray:
    pairs = [pair for pair in zip(a, b, strict=True) if None not in pair]
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)
