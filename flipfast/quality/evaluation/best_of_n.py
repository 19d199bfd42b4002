"""Chooses the best response of each group, whatever order the responses are given in.

A rater sees the distinct responses of a group ordered by a hash of their texts. So nothing depends
on the order in the group: neither the scores of a judge that is shown several responses at once,
nor the choice between ties, nor the end of a race.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from flipfast.quality.raters.base import Cost, Group, Rater
from flipfast.quality.raters.flip import FlipRater
from flipfast.scores import BestOf

Scores = Sequence["float | None"]


@dataclass(frozen=True)
class Choice:
    """The best of one group; the lists have one entry per response, in the group's order.

    Attributes:
        best: index of the highest score. Ties go to the response with the lowest hash, and equal
            texts to the first. The only distinct response is the best even without a score. None
            if there are no responses, or several and no score.
        tied: number of distinct responses with the highest score, 1 for no tie; None after a race,
            whose losers have no scores.
        scores, statuses, errors: as in Ratings; equal texts have equal entries.
    """

    best: int | None
    tied: int | None
    scores: list[float | None]
    statuses: list[str]
    errors: list[str | None]


@dataclass(frozen=True)
class Choices:
    """The best of several groups.

    Attributes:
        choices: one per group.
        cost: of all groups together.
        n_pruned: responses, equal texts counted once, whose outputs were ended early.
        n_spared_tokens: upper bound on the output tokens that this saved.
    """

    choices: list[Choice]
    cost: Cost
    n_pruned: int = 0
    n_spared_tokens: int = 0


def best_of_n(rater: Rater, groups: Sequence[Group], *, seed: int = 0) -> Choices:
    """Rate all responses of all groups as one batch and choose the best of each group.

    Args:
        rater: any.
        groups: any number, with any number of responses each.
        seed: of the rater.
    """
    distinct = [_in_own_order(group) for group in groups]
    ratings = rater.rate(distinct, seed=seed)
    choices = []
    lists = zip(ratings.scores, ratings.statuses, ratings.errors, strict=True)
    for group, ordered, (scores, statuses, errors) in zip(groups, distinct, lists, strict=True):
        best, tied = _highest(scores), _count_highest(scores)
        choices.append(_choice(group, ordered, Choice(best, tied, scores, statuses, errors)))
    return Choices(choices, ratings.cost)


def race(rater: FlipRater, groups: Sequence[Group], *, seed: int = 0) -> Choices:
    """Choose the same as `best_of_n`, group by group, ending outputs that can no longer win.

    Args:
        rater: the FLIP reward.
        groups: any number, with any number of responses each.
        seed: of the rater.
    """
    reward = rater.seeded(seed)
    distinct = [_in_own_order(group) for group in groups]
    races = [reward.score_best_of(one.instruction, one.responses, one.context) for one in distinct]
    choices = []
    for group, ordered, end in zip(groups, distinct, races, strict=True):
        found = Choice(end.best, None, end.rewards, end.status, end.errors)
        choices.append(_choice(group, ordered, found))
    return Choices(
        choices,
        _cost(races, reward.config.samples),
        n_pruned=sum(end.n_pruned for end in races),
        n_spared_tokens=sum(end.n_spared_tokens for end in races),
    )


def _in_own_order(group: Group) -> Group:
    """Reduce a group to its distinct responses, in an order that depends only on their texts."""
    return replace(group, responses=tuple(sorted(set(group.responses), key=_hash)))


def _hash(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _highest(scores: Scores) -> int | None:
    """Return the index of the highest score, the first on a tie."""
    ranked = [(score, -at) for at, score in enumerate(scores) if score is not None]
    return -max(ranked)[1] if ranked else None


def _count_highest(scores: Scores) -> int:
    known = [score for score in scores if score is not None]
    return known.count(max(known)) if known else 0


def _choice(group: Group, ordered: Group, found: Choice) -> Choice:
    """Map a choice among the ordered responses to one among the group's own."""
    places = {text: place for place, text in enumerate(ordered.responses)}
    at = [places[text] for text in group.responses]
    best = 0 if len(places) == 1 else found.best
    return Choice(
        best=None if best is None else at.index(best),
        tied=found.tied,
        scores=[found.scores[place] for place in at],
        statuses=[found.statuses[place] for place in at],
        errors=[found.errors[place] for place in at],
    )


def _cost(races: Sequence[BestOf], n_samples: int) -> Cost:
    return Cost(
        n_runs=n_samples * sum(map(len, races)),
        n_prompt_tokens=sum(sum(end.n_prompt_tokens) for end in races),
        n_output_tokens=sum(sum(end.n_output_tokens) for end in races),
        seconds=sum(end.stats.seconds for end in races),
    )
