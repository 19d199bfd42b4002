"""Runs a rater over preferences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

from flipfast.errors import InputError
from flipfast.quality.evaluation.accuracy import outcome
from flipfast.quality.evaluation.figures import Figures, figures_of
from flipfast.quality.evaluation.preferences import Preference
from flipfast.quality.raters import Cost, Group, Rater, Ratings

_RESPONSES_A_CALL = 1024  # fills a device, and still reports progress often


@dataclass(frozen=True)
class RaterReport:
    """A rater's scores and figures.

    Attributes:
        name: of the rater.
        seeds: of its runs; only one if the rater does not use it.
        subsets: the figures of each subset, in the order of the items.
        mean: their unweighted mean over subsets.
        overall: the figures of all items as one set.
        runs: the ratings under each seed: one entry per item, the chosen responses first.
    """

    name: str
    seeds: tuple[int, ...]
    subsets: dict[str, Figures]
    mean: Figures
    overall: Figures
    runs: tuple[Ratings, ...]

    @property
    def cost(self) -> Cost:
        """The cost of all runs together."""
        return _added([run.cost for run in self.runs])

    @property
    def counts(self) -> dict[str, int]:
        """The additional counters of a subclass of Ratings, summed over all runs; else {}."""
        return _own_counts(self.runs)


def evaluate(
    items: Sequence[Preference],
    rater: Rater,
    *,
    seeds: Sequence[int] = (0,),
    on_progress: Callable[[int], None] | None = None,
) -> RaterReport:
    """Rate all responses and compare the chosen with the rejected ones.

    Args:
        items: such as `read_preferences(path).items`, in any order.
        rater: from flipfast.quality.raters.load_rater, or your own.
        seeds: one run each; a rater that uses no seed is run only with the first.
        on_progress: called from time to time with the number of items rated so far, in all runs.

    Raises:
        InputError: there are no items or no seeds, or an item lacks chosen or rejected responses.
        MissingDependencyError: there are several runs and scipy is not installed.
    """
    _check(items, seeds)
    used = tuple(seeds) if rater.uses_seed else (seeds[0],)
    groups = [item.group for item in items]
    parts: list[list[Ratings]] = [[] for _ in used]
    n_done = 0
    for seed, found in zip(used, parts, strict=True):
        for chunk in _chunks(groups):
            found.append(rater.rate(chunk, seed=seed))
            n_done += len(chunk)
            if on_progress is not None:
                on_progress(n_done)
    return _report(rater.name, used, items, [_joined(found) for found in parts])


def _check(items: Sequence[Preference], seeds: Sequence[int]) -> None:
    if not items or not seeds:
        raise InputError(f"got {len(items)} items and {len(seeds)} seeds: give at least one each")
    for item in items:
        if not (item.chosen and item.rejected):
            raise InputError(
                f"the item of line {item.line} has {len(item.chosen)} chosen and "
                f"{len(item.rejected)} rejected responses: it needs one of each, or leave it out"
            )


def _chunks(groups: Sequence[Group]) -> Iterator[Sequence[Group]]:
    start = n_responses = 0
    for end, group in enumerate(groups, start=1):
        n_responses += len(group.responses)
        if n_responses >= _RESPONSES_A_CALL or end == len(groups):
            yield groups[start:end]
            start, n_responses = end, 0


def _joined(parts: Sequence[Ratings]) -> Ratings:
    return replace(
        parts[0],
        scores=[scores for part in parts for scores in part.scores],
        statuses=[statuses for part in parts for statuses in part.statuses],
        errors=[errors for part in parts for errors in part.errors],
        cost=_added([part.cost for part in parts]),
        **_own_counts(parts),
    )


def _own_counts(parts: Sequence[Ratings]) -> dict[str, int]:
    usual = {field.name for field in fields(Ratings)}
    names = [field.name for field in fields(parts[0]) if field.name not in usual]
    return {name: sum(getattr(part, name) for part in parts) for name in names}


def _added(costs: Sequence[Cost]) -> Cost:
    return Cost(
        n_runs=sum(cost.n_runs for cost in costs),
        n_prompt_tokens=sum(cost.n_prompt_tokens for cost in costs),
        n_output_tokens=sum(cost.n_output_tokens for cost in costs),
        seconds=sum(cost.seconds for cost in costs),
    )


def _report(
    name: str, seeds: tuple[int, ...], items: Sequence[Preference], runs: Sequence[Ratings]
) -> RaterReport:
    outcomes = [
        [
            outcome(scores[: len(item.chosen)], scores[len(item.chosen) :])
            for item, scores in zip(items, run.scores, strict=True)
        ]
        for run in runs
    ]
    subsets: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        subsets.setdefault(item.subset, []).append(place)
    return RaterReport(
        name,
        seeds,
        subsets={name: figures_of(items, outcomes, [of]) for name, of in subsets.items()},
        mean=figures_of(items, outcomes, list(subsets.values())),
        overall=figures_of(items, outcomes, [range(len(items))]),
        runs=tuple(runs),
    )
