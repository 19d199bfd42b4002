"""The figures of a rater on a set of items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean

from flipfast.quality.evaluation.accuracy import Outcome
from flipfast.quality.evaluation.intervals import Interval, bootstrap_interval, seeds_interval
from flipfast.quality.evaluation.length_control import length_controlled_accuracy
from flipfast.quality.evaluation.preferences import Preference


@dataclass(frozen=True)
class Figure:
    """A share with its 95% confidence intervals.

    Attributes:
        value: in [0, 1]; the mean over several runs.
        over_items: by bootstrap over items (Efron 1979); None for the length-controlled figure.
        over_seeds: Student's t interval of the runs' mean; None for a single run. It covers the
            variation from sampling on these items, `over_items` that from the choice of items.
    """

    value: float
    over_items: Interval | None
    over_seeds: Interval | None


@dataclass(frozen=True)
class Figures:
    """A rater's results on some items.

    Attributes:
        n_items: number of items.
        strict: share of items in which every chosen response scores above every rejected one.
        split: the same, but the credit for a shared top score is split (see Outcome).
        pairs: share of pairs of a chosen and a rejected response that the chosen one wins, ties
            counted as half, mean over items; 0.5 is chance.
        length_controlled: the same share if all responses had the same length in characters (see
            length_controlled_accuracy); all items have equal weight.
        tie_rate: share of items whose top score a chosen and a rejected response share.
        failure_rate: share of responses without a score.
        chance: the split accuracy of a random rater: the mean share of chosen responses. Its
            strict accuracy is at most that.
    """

    n_items: int
    strict: Figure
    split: Figure
    pairs: Figure
    length_controlled: Figure
    tie_rate: float
    failure_rate: float
    chance: float


def figures_of(
    items: Sequence[Preference],
    runs: Sequence[Sequence[Outcome]],
    strata: Sequence[Sequence[int]],
) -> Figures:
    """Compute the unweighted mean of the figures of strata.

    Args:
        items: all of them.
        runs: for each seed, the outcome of each item.
        strata: the item indices of each stratum; use one stratum for the plain figures of a set.
    """
    controlled = [fmean(_controlled(items, run, places) for places in strata) for run in runs]
    sizes = [len(item.chosen) + len(item.rejected) for item in items]
    return Figures(
        n_items=sum(map(len, strata)),
        strict=_figure(lambda one: one.strict, runs, strata),
        split=_figure(lambda one: one.split, runs, strata),
        pairs=_figure(lambda one: one.won, runs, strata),
        length_controlled=Figure(fmean(controlled), None, seeds_interval(controlled)),
        tie_rate=fmean(fmean(run[i].tie for i in places) for run in runs for places in strata),
        failure_rate=fmean(
            sum(run[i].n_failed for i in places) / sum(sizes[i] for i in places)
            for run in runs
            for places in strata
        ),
        chance=fmean(fmean(len(items[i].chosen) / sizes[i] for i in places) for places in strata),
    )


def _figure(
    value: Callable[[Outcome], float],
    runs: Sequence[Sequence[Outcome]],
    strata: Sequence[Sequence[int]],
) -> Figure:
    means = [fmean(fmean(value(run[i]) for i in places) for places in strata) for run in runs]
    by_item = [[fmean(value(run[i]) for run in runs) for i in places] for places in strata]
    return Figure(fmean(means), bootstrap_interval(by_item), seeds_interval(means))


def _controlled(
    items: Sequence[Preference], outcomes: Sequence[Outcome], places: Sequence[int]
) -> float:
    pairs = [
        (win, len(a) - len(b), 1 / len(outcomes[i].wins))
        for i in places
        for win, (a, b) in zip(
            outcomes[i].wins, product(items[i].chosen, items[i].rejected), strict=True
        )
    ]
    wins, differences, weights = zip(*pairs, strict=True)
    return length_controlled_accuracy(wins, differences, weights)
