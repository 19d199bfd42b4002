"""An attacker that climbs a rater's score, compared with a gold score that it does not see.

Optimized far enough, a score no longer measures what it was made for: the true value falls while
the score still rises ("Scaling Laws for Reward Model Overoptimization", Gao, Schulman and Hilton
2023, arXiv 2210.10760). Here the true value is known by construction: a climb starts from an honest
response, and the gold score is the word F1 with that response, which is how much of the real answer
is left. A rater that can tell good from bad does not reward taking the answer apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean

from flipfast.metrics import overlap_f1
from flipfast.quality.attacks.base import random_of
from flipfast.quality.raters import Group, Rater

_LONGEST_SPAN = 4  # words that one change inserts, deletes or repeats

_Words = list[str]


@dataclass(frozen=True)
class Climb:
    """The paths of a rater's climbers; the lists have one entry per group.

    Attributes:
        rewards: for each step, from 0 on, the score of the climber's text, rated together with the
            honest response that it started from; None for a failure.
        golds: for each step, the word F1 with the honest response, in [0, 1].
        texts: the final text of each climber.
    """

    rewards: list[list[float | None]]
    golds: list[list[float]]
    texts: list[str]

    @property
    def mean_rewards(self) -> list[float | None]:
        """For each step, the mean over the groups whose climber has a score."""
        columns = ([r for r in step if r is not None] for step in zip(*self.rewards, strict=True))
        return [fmean(known) if known else None for known in columns]

    @property
    def mean_golds(self) -> list[float]:
        """For each step, the mean over all groups."""
        return [fmean(step) for step in zip(*self.golds, strict=True)]


def climb(
    rater: Rater, groups: Sequence[Group], steps: int, *, n_candidates: int = 8, seed: int = 0
) -> Climb:
    """Change the first response of each group, step by step, so that its score rises.

    In each step a climber draws candidates, each of them its text with one change: a few words of
    the instruction or of the group's other responses inserted, some of its own deleted or repeated,
    or two swapped. It takes the best one if that scores higher than its current text, rated
    together with it. It sees only scores and its own group.

    Args:
        rater: called once per step, with one batch for all climbers.
        groups: with at least one response each.
        steps: any number.
        n_candidates: per climber and step.
        seed: of the climbers and the rater.
    """
    climbers = [_Climber(group, seed) for group in groups]
    rewards: list[list[float | None]] = [[] for _ in groups]
    golds: list[list[float]] = [[] for _ in groups]
    for step in range(steps + 1):
        n = n_candidates if step < steps else 0  # the last round only rates the final texts
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
        """Return the current text, and n texts that differ from it by one change."""
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
    """Return the text with the highest score, the first on a tie; failures rank lowest."""
    ranked = [float("-inf") if score is None else score for score in scores]
    return texts[ranked.index(max(ranked))]
