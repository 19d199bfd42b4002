"""An attacker that climbs a rater's score, held against a gold score that it does not see.

Optimised far enough, a score no longer tells what it was made for: the true value falls while the
score still rises ("Scaling Laws for Reward Model Overoptimization", Gao, Schulman and Hilton 2023,
arXiv 2210.10760). Here the true value is known by construction: a climb starts from an honest
response, and the gold score is the word F1 with that response, which is how much of the real answer
is left. A rater that knows good from bad gives nothing for taking the answer apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean

from flipfast.metrics import overlap_f1
from flipfast.quality.attacks.base import random_of
from flipfast.quality.raters import Group, Rater

_LONGEST_SPAN = 4  # words that one change brings, takes or repeats

_Words = list[str]


@dataclass(frozen=True)
class Climb:
    """The ways of a rater's climbers; the lists have one entry a group, the first two of lists.

    Attributes:
        rewards: after so many steps, from none on, the score of what a climber has, rated beside
            the honest response that it started from; None for a failure.
        golds: in the same places the word F1 with the honest response, in [0, 1].
        texts: what each climber ended with.
    """

    rewards: list[list[float | None]]
    golds: list[list[float]]
    texts: list[str]

    @property
    def mean_rewards(self) -> list[float | None]:
        """After so many steps the mean over the groups whose climber has a score there."""
        columns = ([r for r in step if r is not None] for step in zip(*self.rewards, strict=True))
        return [fmean(known) if known else None for known in columns]

    @property
    def mean_golds(self) -> list[float]:
        """After so many steps the mean over all groups."""
        return [fmean(step) for step in zip(*self.golds, strict=True)]


def climb(
    rater: Rater, groups: Sequence[Group], steps: int, *, n_candidates: int = 8, seed: int = 0
) -> Climb:
    """Change the first response of each group, step by step, so that its score rises.

    In each step a climber draws candidates, each of them its text with one change: a few words of
    the instruction or of the group's other responses put in, some of its own left out or repeated,
    or two exchanged. It takes the best of them where that scores higher than what it has, rated
    together with it. It sees scores and its own group, nothing else.

    Args:
        rater: what all climbers ask in a step is one batch.
        groups: with one response or more.
        steps: any number.
        n_candidates: of each climber in each step.
        seed: of the climbers' and the rater's chance.
    """
    climbers = [_Climber(group, seed) for group in groups]
    rewards: list[list[float | None]] = [[] for _ in groups]
    golds: list[list[float]] = [[] for _ in groups]
    for step in range(steps + 1):
        n = n_candidates if step < steps else 0  # the last round only looks at what there is
        drawn = [climber.candidates(n) for climber in climbers]
        asked = [
            *(climber.asked((climber.honest, climber.text)) for climber in climbers),
            *(climber.asked(texts) for climber, texts in zip(climbers, drawn, strict=True)),
        ]
        scores = rater.rate(asked, seed=seed).scores
        for i, climber in enumerate(climbers):
            rewards[i].append(scores[i][1])
            golds[i].append(climber.gold())
            climber.text = _best(drawn[i], scores[len(climbers) + i])
    return Climb(rewards, golds, [climber.text for climber in climbers])


class _Climber:
    def __init__(self, group: Group, seed: int) -> None:
        self.honest = self.text = group.responses[0]
        self._group = group
        self._random = random_of(seed, group.instruction, *group.responses)
        sources = (group.instruction, *group.responses[1:])
        self._sources = [source.split(" ") for source in sources]

    def candidates(self, n: int) -> tuple[str, ...]:
        """What there is, and n texts that differ from it by one change."""
        words = self.text.split(" ")
        changes = [self._random.choice(_CHANGES) for _ in range(n)]
        drawn = (change(words, self._sources, self._random) for change in changes)
        return (self.text, *(" ".join(changed) for changed in drawn))

    def asked(self, texts: tuple[str, ...]) -> Group:
        return Group(self._group.instruction, texts, self._group.context)

    def gold(self) -> float:
        return float(overlap_f1([self.text], [self.honest])[0, 0])


def _insert(words: _Words, sources: Sequence[_Words], random: Random) -> _Words:
    start, end = _span(source := random.choice(sources), random)
    at = random.randint(0, len(words))
    return words[:at] + source[start:end] + words[at:]


def _delete(words: _Words, _: Sequence[_Words], random: Random) -> _Words:
    start, end = _span(words, random)
    return words[:start] + words[end:]


def _repeat(words: _Words, _: Sequence[_Words], random: Random) -> _Words:
    start, end = _span(words, random)
    return words[:end] + words[start:]


def _exchange(words: _Words, _: Sequence[_Words], random: Random) -> _Words:
    i, j = random.randrange(len(words)), random.randrange(len(words))
    changed = list(words)
    changed[i], changed[j] = words[j], words[i]
    return changed


_CHANGES: tuple[Callable[[_Words, Sequence[_Words], Random], _Words], ...] = (
    _insert,
    _delete,
    _repeat,
    _exchange,
)


def _span(words: _Words, random: Random) -> tuple[int, int]:
    start = random.randrange(len(words))
    return start, start + random.randint(1, _LONGEST_SPAN)


def _best(texts: Sequence[str], scores: Sequence[float | None]) -> str:
    """The text with the highest score, the first of equals; a failure is below all scores."""
    ranked = [float("-inf") if score is None else score for score in scores]
    return texts[ranked.index(max(ranked))]
