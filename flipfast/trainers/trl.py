"""TRL: the reward for GRPOTrainer and AsyncGRPOTrainer, with what it saw in their logs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from flipfast.config import FlipConfig
from flipfast.reward import FlipReward
from flipfast.scores import ScoreBatch, trainer_rewards
from flipfast.scoring import background
from flipfast.scoring.async_scoring import AsyncScorer
from flipfast.trainers._scorers import scorer_of


class TrlReward:
    """The FLIP reward as one of TRL's `reward_funcs`.

    `GRPOTrainer(reward_funcs=TrlReward(...))` for the trainer that waits for its rewards;
    `reward_funcs=TrlReward(...).flip_reward`, a coroutine function, for AsyncGRPOTrainer, whose
    child process it is pickled into. Prompts and completions are strings or lists of messages.

    TRL calls it on every rank with that rank's completions. With a model's name or a configuration
    each rank has an engine of its own, which is loaded with the first call; with an address one
    server scores for all of them. AsyncGRPOTrainer's child sees no GPU: give it an address.

    Args:
        target: a server's address; a model's name or a FlipConfig; a FlipReward or an AsyncScorer.
            None is the server at FLIPFAST_URL where that is set, else the embedded model.
        timeout: seconds that a batch may take on a server; late rows have no reward.
        options: those of AsyncFlipClient for a server, else of FlipConfig. The first call raises
            ConfigError for one that cannot be used.
    """

    __name__ = "flip_reward"  # TRL names the reward's metrics by it

    def __init__(
        self,
        target: str | FlipConfig | FlipReward | AsyncScorer | None = None,
        *,
        timeout: float = 300.0,
        **options: Any,
    ) -> None:
        self._target = target
        self._timeout = timeout
        self._options = options

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Score a batch.

        Args:
            prompts, completions: strings or lists of messages; see `FlipReward.__call__`.
            log_extra: gets two columns of TRL's table of completions: "flip_inferred", the
                inferred instruction, and "flip_zero_variance", see `ScoreBatch.zero_variance`,
                where neighbours with the same prompt are a group.
            log_metric: gets "flip/rewards_per_s", "flip/failed_share" and
                "flip/zero_variance_share". Each of the five is logged with every call, whatever
                came of it, as all ranks have to log the same.
            columns: the trainer's other columns and helpers, not used.

        Returns:
            One reward a row; None for a row that failed, which TRL leaves out of its group's mean.

        Raises:
            InputError: prompts and completions differ in length.
            UnavailableError: the server cannot be reached. No reward is made up.
        """
        batch = self._score(prompts, completions)
        alike = batch.zero_variance(prompts)
        if log_extra is not None:
            log_extra("flip_inferred", list(batch.inferred))
            log_extra("flip_zero_variance", alike)
        if log_metric is not None:
            n = max(1, len(batch))
            log_metric("flip/rewards_per_s", batch.stats.rewards_per_s)
            log_metric("flip/failed_share", batch.stats.n_failed / n)
            log_metric("flip/zero_variance_share", sum(alike) / n)
        return trainer_rewards(batch)

    async def flip_reward(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """Score a batch from a coroutine; as a call does, without logs."""
        if isinstance(self._target, FlipReward):
            return trainer_rewards(
                await asyncio.to_thread(self._target.score_chats, prompts, completions)
            )
        # Loading a model takes long: the caller's event loop has other things to do.
        scorer = await asyncio.to_thread(scorer_of, self._target, **self._options)
        batch = await scorer.score_chats(prompts, completions, timeout=self._timeout)
        return trainer_rewards(batch)

    def _score(self, prompts: Sequence[Any], completions: Sequence[Any]) -> ScoreBatch:
        if isinstance(self._target, FlipReward):
            return self._target.score_chats(prompts, completions)
        scorer = scorer_of(self._target, **self._options)
        return background.run(scorer.score_chats(prompts, completions, timeout=self._timeout))
