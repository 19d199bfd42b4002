"""How far two rewards of the same groups of responses agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from flipfast.errors import InputError, MissingDependencyError

Groups = Sequence[Sequence["float | None"]]  # rewards of each group's responses, None for a failure


@dataclass(frozen=True)
class Agreement:
    """How a second reward agrees with a first one; None where undefined.

    A failed response ranks below all others, and ties with other failed ones.

    Attributes:
        kendall: mean over groups of Kendall's tau-b (Kendall 1945), in [-1, 1]. Undefined for a
            group whose responses all tie by one of the rewards.
        n_kendall: groups for which it is defined.
        spearman: Spearman's rank correlation over the responses of all groups, in [-1, 1].
        same_best: mean over groups of two responses or more of |A & B| / max(|A|, |B|), where A
            are the best responses by the first reward and B those by the second: 1 if both name
            the same ones, less if one of them ties more responses for the best.
        chance: the expected same_best if the second reward's values were shuffled within each
            group: the mean of min(|A|, |B|) / responses.
    """

    kendall: float | None
    n_kendall: int
    spearman: float | None
    same_best: float | None
    chance: float | None


def agreement(first: Groups, second: Groups) -> Agreement:
    """Compare two rewards of the same responses.

    Args:
        first: groups of rewards, of any sizes.
        second: the same responses' rewards, in the same order.

    Raises:
        InputError: the two differ in the number of groups, or of responses in a group.
        MissingDependencyError: scipy is not installed.
    """
    sizes = [[len(group) for group in groups] for groups in (first, second)]
    if sizes[0] != sizes[1]:
        raise InputError(f"groups of {sizes[0]} and of {sizes[1]} responses are not the same ones")
    stats = require_stats()
    pairs = [(_ranked(a), _ranked(b)) for a, b in zip(first, second, strict=True) if len(a) > 1]
    taus = [float(stats.kendalltau(a, b).statistic) for a, b in pairs if _varied(a, b)]
    rows = [_ranked([reward for group in groups for reward in group]) for groups in (first, second)]
    bests = [(best_places(a), best_places(b), len(a)) for a, b in pairs]
    return Agreement(
        kendall=_mean(taus),
        n_kendall=len(taus),
        spearman=float(stats.spearmanr(*rows).statistic) if _varied(*rows) else None,
        same_best=_mean([len(a & b) / max(len(a), len(b)) for a, b, _ in bests]),
        chance=_mean([min(len(a), len(b)) / n for a, b, n in bests]),
    )


def best_places(group: Sequence[float | None]) -> set[int]:
    """Return the indices of the best rewards of a group; all of them if every response failed."""
    ranked = _ranked(group)
    return {place for place, reward in enumerate(ranked) if reward == max(ranked)}


def require_stats() -> Any:
    """Import and return the module scipy.stats.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise MissingDependencyError(
            f"rank correlations need scipy, which cannot be imported ({error}): "
            "pip install 'flipfast[plot]'"
        ) from error
    return stats


def _ranked(group: Sequence[float | None]) -> list[float]:
    return [float("-inf") if reward is None else reward for reward in group]


def _varied(*columns: list[float]) -> bool:
    """Return whether each column has distinct values; a constant one orders nothing."""
    return all(len(set(column)) > 1 for column in columns)


def _mean(values: list[float]) -> float | None:
    return fmean(values) if values else None
