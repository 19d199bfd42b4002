"""Raters with known answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from flipfast.quality.raters import Cost, Group, Rater, Ratings


class FakeRater(Rater):
    """Scores each response by `score(text, draw)`; None is a failure."""

    def __init__(
        self,
        score: Callable[[str, random.Random], float | None],
        *,
        name: str = "fake",
        uses_seed: bool = False,
    ) -> None:
        self.name = name
        self.calls: list[tuple[int, int]] = []  # groups and seed of each call
        self._score = score
        self._uses_seed = uses_seed

    @property
    def uses_seed(self) -> bool:
        return self._uses_seed

    def rate(self, groups: Sequence[Group], *, seed: int = 0) -> Ratings:
        self.calls.append((len(groups), seed))
        scores = [self._scores(group, seed) for group in groups]
        n = sum(map(len, scores))
        return Ratings(
            scores=scores,
            statuses=[["ok" if x is not None else "unparsed" for x in one] for one in scores],
            errors=[[None] * len(one) for one in scores],
            cost=Cost(n_runs=n, n_prompt_tokens=10 * n, n_output_tokens=2 * n, seconds=0.25),
        )

    def _scores(self, group: Group, seed: int) -> list[float | None]:
        """From the group and the seed alone."""
        draw = random.Random(f"{group.instruction} {group.responses} {seed}")
        return [self._score(text, draw) for text in group.responses]


def good_wins(text: str, draw: random.Random) -> float:
    return 1.0 if text.startswith("good") else 0.0


def bad_wins(text: str, draw: random.Random) -> float:
    return 0.0 if text.startswith("good") else 1.0


def all_equal(text: str, draw: random.Random) -> float:
    return 0.5


def always_fails(text: str, draw: random.Random) -> None:
    return None


def one_to_ten(text: str, draw: random.Random) -> float:
    return draw.randint(1, 10)


def likes_length(text: str, draw: random.Random) -> float:
    return len(text)
