"""Several inverters on the same rows: their combined rewards, and how far they disagree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from flipfast.config import FlipConfig
from flipfast.errors import ConfigError
from flipfast.scores import ScoreBatch, trainer_rewards

if TYPE_CHECKING:
    from flipfast.reward import FlipReward

_JOIN: dict[str, Callable[[list[float]], float]] = {"mean": fmean, "min": min}


@dataclass(frozen=True)
class EnsembleBatch:
    """The rewards of a batch; every list but `members` has one entry per row, in input order.

    Attributes:
        rewards: the members' mean or minimum; None if no member has a reward.
        disagreement: population standard deviation of the members' rewards; None for fewer than
            two.
        members: the batch of each member.
    """

    rewards: list[float | None]
    disagreement: list[float | None]
    members: list[ScoreBatch]

    def __len__(self) -> int:
        return len(self.rewards)


class FlipEnsemble:
    """Rewards of several models or configurations as one, callable as a TRL reward function.

    Disagreement reveals a policy that has learned to please only one inverter, and with join="min"
    that gains it little (Coste et al. 2024, Reward Model Ensembles).

    Args:
        members: models, configurations, or already loaded rewards.
        join: "mean" or "min" of a row's rewards; a member's None is left out.

    Raises:
        ConfigError: there are no members, or the join is unknown.
        ModelLoadError: a model cannot be loaded.
    """

    __name__ = "flip_ensemble"  # TRL names the reward's metrics after it

    def __init__(
        self, members: Sequence[str | FlipConfig | FlipReward], *, join: str = "mean"
    ) -> None:
        if not members:
            raise ConfigError("an ensemble needs a member: pass models or rewards")
        if join not in _JOIN:
            raise ConfigError(f"join must be one of {', '.join(_JOIN)}, not {join!r}")
        self._join = _JOIN[join]
        self._opened: list[FlipReward] = []
        try:
            self.members = [self._member(member) for member in members]
        except BaseException:
            self.close()
            raise

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any
    ) -> list[float | None]:
        """Score a batch in the format of TRL's trainers; see FlipReward."""
        batches = [member.score_chats(prompts, completions) for member in self.members]
        for batch in batches:
            trainer_rewards(batch)  # logs rows with errors
        return self._together(batches).rewards

    def score(
        self,
        instructions: Sequence[str],
        responses: Sequence[str],
        contexts: Sequence[str | None] | None = None,
    ) -> EnsembleBatch:
        """Score a batch of texts with each member; see FlipReward.score.

        Raises:
            InputError: the sequences differ in length, or one of them is a single string.
        """
        batches = [member.score(instructions, responses, contexts) for member in self.members]
        return self._together(batches)

    def close(self) -> None:
        """Close the members that were loaded here."""
        for member in self._opened:
            member.close()

    def __enter__(self) -> FlipEnsemble:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _member(self, member: str | FlipConfig | FlipReward) -> FlipReward:
        from flipfast.reward import FlipReward  # here, as it imports from this package

        if isinstance(member, FlipReward):
            return member
        self._opened.append(FlipReward(member))
        return self._opened[-1]

    def _together(self, batches: list[ScoreBatch]) -> EnsembleBatch:
        rows = [
            [reward for reward in row if reward is not None]
            for row in zip(*(batch.rewards for batch in batches), strict=True)
        ]
        return EnsembleBatch(
            rewards=[self._join(row) if row else None for row in rows],
            disagreement=[pstdev(row) if len(row) > 1 else None for row in rows],
            members=batches,
        )
