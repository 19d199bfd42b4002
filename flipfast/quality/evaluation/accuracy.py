"""Evaluates the scores of one item: do the chosen responses score above the rejected ones?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

_LOWEST = float("-inf")  # rank of a response without a score: below all others, equal to its like


@dataclass(frozen=True)
class Outcome:
    """The outcome of one item.

    Attributes:
        strict: every chosen response scores above every rejected one; a failed one never does.
        split: the share of chosen responses among those with the top score, so each of k tied
            ones gets 1/k. If all failed, all tie: the chance level. For one chosen response this is
            the credit of RewardBench 2's own evaluation (Malik et al. 2025, arXiv 2506.01937),
            which gives 1/4 to an item of four without any rating.
        wins: 1.0, 0.5 for equal scores, or 0.0 for each pair of a chosen and a rejected response,
            in the order of itertools.product.
        tie: a chosen and a rejected response share the top score; False if all failed.
        n_failed: number of responses without a score.
    """

    strict: bool
    split: float
    wins: tuple[float, ...]
    tie: bool
    n_failed: int

    @property
    def won(self) -> float:
        """Share of pairs won, with ties counted as half."""
        return fmean(self.wins)


def outcome(chosen: Sequence[float | None], rejected: Sequence[float | None]) -> Outcome:
    """Compare the scores of an item's responses.

    Args:
        chosen: at least one; None for a failure.
        rejected: at least one; None for a failure.
    """
    good, bad = _ranked(chosen), _ranked(rejected)
    top = max(good + bad)
    n_good, n_bad = good.count(top), bad.count(top)
    return Outcome(
        strict=min(good) > max(bad),
        split=n_good / (n_good + n_bad),
        wins=tuple((1 + (a > b) - (a < b)) / 2 for a in good for b in bad),
        tie=top > _LOWEST and n_good > 0 and n_bad > 0,
        n_failed=(*chosen, *rejected).count(None),
    )


def _ranked(scores: Sequence[float | None]) -> list[float]:
    return [_LOWEST if score is None else score for score in scores]
