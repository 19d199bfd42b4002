"""Runs attacks against raters: each honest response next to its attacked form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from flipfast.quality.attacks.base import Attack, Case, random_of
from flipfast.quality.raters import Group, Rater, Ratings


@dataclass(frozen=True)
class Pair:
    """An honest response and its attacked form.

    Attributes:
        group: the index of its group.
        response: its index in the group.
        honest: the honest text that the attack is compared with.
        attacked: the attacking text.
    """

    group: int
    response: int
    honest: str
    attacked: str


@dataclass(frozen=True)
class Outcome:
    """A rater's scores of the pairs of an attack; the lists have one entry per pair.

    Attributes:
        honest, attacked: scores, None for a failure.
        honest_statuses, attacked_statuses: see Ratings.
    """

    honest: list[float | None]
    attacked: list[float | None]
    honest_statuses: list[str]
    attacked_statuses: list[str]


@dataclass(frozen=True)
class Trial:
    """One attack against all raters.

    Attributes:
        attack: the attack tried.
        pairs: all honest responses of all groups in order, except those that it leaves unchanged.
        n_unchanged: the number of unchanged ones.
        outcomes: one per rater.
    """

    attack: Attack
    pairs: list[Pair]
    n_unchanged: int
    outcomes: list[Outcome]


@dataclass(frozen=True)
class Figures:
    """A summary of an outcome; the first five are None if no pair has both scores.

    Attributes:
        honest: mean score of the honest responses; like the next four, over pairs with both scores.
        attacked: mean score of the attacked ones.
        change: mean of attacked minus honest.
        beats: share of pairs in which the attacked response scores higher.
        ties: share of pairs with equal scores.
        honest_failed: share of all pairs whose honest response has no score; None without pairs.
        attacked_failed: the same for the attacked ones. Whether that repels the attack depends on
            how a response without a score is treated.
    """

    honest: float | None
    attacked: float | None
    change: float | None
    beats: float | None
    ties: float | None
    honest_failed: float | None
    attacked_failed: float | None


def figures(outcome: Outcome) -> Figures:
    """Summarize a rater's scores of the pairs of an attack."""
    both = [
        (honest, attacked)
        for honest, attacked in zip(outcome.honest, outcome.attacked, strict=True)
        if honest is not None and attacked is not None
    ]
    return Figures(
        honest=_mean([honest for honest, _ in both]),
        attacked=_mean([attacked for _, attacked in both]),
        change=_mean([attacked - honest for honest, attacked in both]),
        beats=_mean([attacked > honest for honest, attacked in both]),
        ties=_mean([attacked == honest for honest, attacked in both]),
        honest_failed=_mean([score is None for score in outcome.honest]),
        attacked_failed=_mean([score is None for score in outcome.attacked]),
    )


def run_attacks(
    raters: Sequence[Rater],
    attacks: Sequence[Attack],
    groups: Sequence[Group],
    *,
    special_tokens: Sequence[str] = (),
    seed: int = 0,
) -> list[Trial]:
    """Try attacks on every response of every group.

    A rater sees an honest response and its attacked form as a group of two, so raters that compare
    responses and those that score each on its own answer the same question. An attacked form
    depends only on the response, its instruction, the special tokens and the seed.

    Args:
        raters: any number; each scores all pairs as one batch.
        attacks: any number.
        groups: with honest responses; every response counts as one.
        special_tokens: see Case.
        seed: of the attacks and the raters.

    Returns:
        One trial per attack.
    """
    made = [_pairs(attack, groups, tuple(special_tokens), seed) for attack in attacks]
    changed = [[pair for pair in pairs if pair.attacked != pair.honest] for pairs in made]
    rated = [_rate(rater, groups, changed, seed) for rater in raters]
    return [
        Trial(attack, kept, len(pairs) - len(kept), [outcomes[i] for outcomes in rated])
        for i, (attack, pairs, kept) in enumerate(zip(attacks, made, changed, strict=True))
    ]


def _pairs(
    attack: Attack, groups: Sequence[Group], special_tokens: tuple[str, ...], seed: int
) -> list[Pair]:
    pairs = []
    for at, group in enumerate(groups):
        for place, response in enumerate(group.responses):
            case = Case(group.instruction, response, special_tokens)
            chance = random_of(seed, attack.name, group.instruction, response)
            honest = attack.against(response) if attack.against else response
            pairs.append(Pair(at, place, honest, attack.make(case, chance)))
    return pairs


def _rate(
    rater: Rater, groups: Sequence[Group], trials: Sequence[Sequence[Pair]], seed: int
) -> list[Outcome]:
    """Rate all lists of pairs as one batch, which repeats honest texts; one outcome per list."""
    asked = [
        Group(
            groups[pair.group].instruction, (pair.honest, pair.attacked), groups[pair.group].context
        )
        for pairs in trials
        for pair in pairs
    ]
    rest = _scored(rater.rate(asked, seed=seed))
    return [_outcome([next(rest) for _ in pairs]) for pairs in trials]


_Scored = tuple[list["float | None"], list[str]]


def _scored(ratings: Ratings) -> Iterator[_Scored]:
    return zip(ratings.scores, ratings.statuses, strict=True)


def _outcome(scored: Sequence[_Scored]) -> Outcome:
    return Outcome(
        honest=[scores[0] for scores, _ in scored],
        attacked=[scores[1] for scores, _ in scored],
        honest_statuses=[statuses[0] for _, statuses in scored],
        attacked_statuses=[statuses[1] for _, statuses in scored],
    )


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
