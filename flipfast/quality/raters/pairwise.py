"""A judge that compares every pair of responses, in both orders."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from statistics import fmean

from flipfast.backends import Inverter
from flipfast.config import FlipConfig
from flipfast.prompts.judging import PAIRWISE
from flipfast.quality.raters._judge import Heard, Order, Verdict
from flipfast.quality.raters._verdicts import last_letter
from flipfast.quality.raters._writing import WritingJudge
from flipfast.quality.raters.base import Group, Ratings

_SHARE_OF_FIRST = (1.0, 0.0, 0.5)  # for the verdicts A, B and C


@dataclass(frozen=True)
class PairwiseRatings(Ratings):
    """Ratings, and how consistent the comparisons are.

    Attributes:
        n_pairs: pairs of responses whose verdicts could be read in both orders.
        n_inconsistent: those of them whose two orders give different verdicts.
        n_ties: readable comparisons that the judge called a tie.
    """

    n_pairs: int
    n_inconsistent: int
    n_ties: int


class PairwiseJudge(WritingJudge):
    """Scores a response by its share of won comparisons with the others of its group.

    The verdicts are `[[A]]`, `[[B]]` and `[[C]]` for a tie, as in Zheng et al. 2023
    (arXiv 2306.05685). Each order of a pair is one comparison: 1 for a win, 0.5 for a tie, so a
    judge that always prefers the first response gives every response 0.5.

    Statuses: "recovered" if some of a response's comparisons could not be read, and "alone",
    without a score, if there is nothing to compare it with.
    """

    def _orders(self, group: Group, seed: int) -> list[Order]:
        return list(permutations(range(len(group.responses)), 2))

    def _find(self, answer: str) -> float | None:
        return last_letter(answer)

    def _offers(self, value: float, n_shown: int) -> bool:
        return value < len(_SHARE_OF_FIRST)

    def _tally(self, n_responses: int, heard: Heard) -> list[Verdict]:
        shares: list[list[float]] = [[] for _ in range(n_responses)]
        failures: list[list[Verdict]] = [[] for _ in range(n_responses)]
        for (first, second), verdict in heard:
            share = _share_of_first(verdict)
            if share is None:
                failures[first].append(verdict)
                failures[second].append(verdict)
            else:
                shares[first].append(share)
                shares[second].append(1 - share)
        return [_verdict(*both) for both in zip(shares, failures, strict=True)]

    def _report(self, ratings: Ratings, heard: list[Heard]) -> PairwiseRatings:
        n_pairs = n_inconsistent = n_ties = 0
        for group in heard:
            shares = {order: _share_of_first(verdict) for order, verdict in group}
            for (i, j), share in shares.items():
                other = shares[j, i]
                n_ties += share == 0.5
                if i < j and share is not None and other is not None:
                    n_pairs += 1
                    n_inconsistent += share + other != 1
        return PairwiseRatings(
            **vars(ratings), n_pairs=n_pairs, n_inconsistent=n_inconsistent, n_ties=n_ties
        )


def _share_of_first(verdict: Verdict) -> float | None:
    return None if verdict.value is None else _SHARE_OF_FIRST[int(verdict.value)]


def _verdict(shares: list[float], failures: list[Verdict]) -> Verdict:
    if shares:
        return Verdict(fmean(shares), "recovered" if failures else "ok")
    if not failures:
        return Verdict(None, "alone")
    alike = len({failure.status for failure in failures}) == 1
    return failures[0] if alike else Verdict(None, "unparsed")


def load(name: str, config: FlipConfig, inverter: Inverter) -> PairwiseJudge:
    """See load_rater."""
    return PairwiseJudge(name, config, inverter, PAIRWISE, n_shown=2)
