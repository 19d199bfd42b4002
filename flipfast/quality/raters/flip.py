"""The FLIP reward as a rater."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from flipfast.backends import Inverter
from flipfast.config import FlipConfig
from flipfast.quality.raters.base import Cost, Group, Rater, Ratings
from flipfast.reward import FlipReward

Entry = TypeVar("Entry")


class FlipRater(Rater):
    """Scores each response by its reward.

    Args:
        name: its name in tables.
        reward: with any options; its seed is ignored.
    """

    def __init__(self, name: str, reward: FlipReward) -> None:
        self.name = name
        self._reward = reward

    @property
    def uses_seed(self) -> bool:
        return self._reward.config.temperature > 0

    def rate(self, groups: Sequence[Group], *, seed: int = 0) -> Ratings:
        """See Rater."""
        reward = self.seeded(seed)
        rows = [
            (group.instruction, text, group.context) for group in groups for text in group.responses
        ]
        instructions, responses, contexts = zip(*rows, strict=True) if rows else ((), (), ())
        batch = reward.score(instructions, responses, contexts)
        return Ratings(
            scores=_by_group(groups, batch.rewards),
            statuses=_by_group(groups, batch.status),
            errors=_by_group(groups, batch.errors),
            cost=Cost(
                n_runs=sum(n > 0 for n in batch.n_prompt_tokens) * reward.config.samples,
                n_prompt_tokens=sum(batch.n_prompt_tokens),
                n_output_tokens=sum(batch.n_output_tokens),
                seconds=batch.stats.seconds,
            ),
        )

    def seeded(self, seed: int) -> FlipReward:
        """Return the reward with this seed, or itself if it does not sample."""
        config = self._reward.config
        if not self.uses_seed or seed == config.seed:
            return self._reward
        return FlipReward(config.with_options({"seed": seed}), inverter=self._reward.inverter)


def _by_group(groups: Sequence[Group], entries: Sequence[Entry]) -> list[list[Entry]]:
    rest: Iterator[Entry] = iter(entries)
    return [[next(rest) for _ in group.responses] for group in groups]


def load(name: str, config: FlipConfig, inverter: Inverter) -> FlipRater:
    """See load_rater."""
    return FlipRater(name, FlipReward(config, inverter=inverter))
