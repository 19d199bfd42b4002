"""Raters whose answers are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flipfast.quality.raters import Cost, Group, Rater, Ratings


class Toy(Rater):
    """Scores each response by a function of its text, which may find none."""

    uses_seed = False

    def __init__(self, score: Callable[[str], float | None], name: str = "toy") -> None:
        self.name = name
        self.asked: list[Group] = []
        self._score = score

    def rate(self, groups: Sequence[Group], *, seed: int = 0) -> Ratings:
        self.asked += groups
        scores = [[self._score(text) for text in group.responses] for group in groups]
        return Ratings(
            scores=scores,
            statuses=[["unparsed" if s is None else "ok" for s in row] for row in scores],
            errors=[[None for _ in row] for row in scores],
            cost=Cost(sum(map(len, scores)), 0, 0, 0.0),
        )


class Duel(Toy):
    """Compares a group's responses by a function: 1 for the best one, 0 for the others."""

    def rate(self, groups: Sequence[Group], *, seed: int = 0) -> Ratings:
        found = super().rate(groups, seed=seed)
        scores = [[float(score == max(row)) for score in row] for row in found.scores]
        return Ratings(scores, found.statuses, found.errors, found.cost)
