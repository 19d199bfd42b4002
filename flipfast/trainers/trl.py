"""TRL: the reward for GRPOTrainer and AsyncGRPOTrainer, and for environments that own theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, ClassVar

from flipfast.config import FlipConfig
from flipfast.errors import ConfigError
from flipfast.reward import FlipReward
from flipfast.scores import ScoreBatch, trainer_rewards
from flipfast.scoring import background
from flipfast.scoring.async_scoring import AsyncScorer
from flipfast.trainers._ahead import ScoredAhead
from flipfast.trainers._scorers import scorer_of


class TrlReward:
    """The FLIP reward as one of TRL's `reward_funcs`.

    Use `GRPOTrainer(reward_funcs=TrlReward(...))` with the synchronous trainer, and the coroutine
    function `reward_funcs=TrlReward(...).flip_reward` with AsyncGRPOTrainer, which pickles it into
    a child process. Prompts and completions are strings or lists of messages.

    TRL calls it on every rank with that rank's completions. With a model name or a configuration,
    each rank loads its own engine on the first call; with an address, one server scores for all
    ranks. AsyncGRPOTrainer's child process sees no GPU: give it an address.

    Args:
        target: a server's address, a model name, a FlipConfig, a FlipReward or an AsyncScorer.
            None means the server at FLIPFAST_URL if that is set, else the embedded model.
        timeout: seconds that a batch may take, except with a FlipReward; late rows have no reward.
        options: options of AsyncFlipClient for a server, otherwise of FlipConfig. The first call
            raises ConfigError if one is invalid.
    """

    __name__ = "flip_reward"  # TRL names the reward's metrics after it

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
        self._ahead: ScoredAhead | None = None

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
            log_extra: receives two columns for TRL's completions table: "flip_inferred", the
                inferred instruction, and "flip_zero_variance", see `ScoreBatch.zero_variance`
                (adjacent rows with the same prompt form a group).
            log_metric: receives "flip/rewards_per_s" (of the time that this call took),
                "flip/failed_share" and "flip/zero_variance_share". All five are logged on every
                call, whatever the outcome, because all ranks must log the same keys.
            columns: the trainer's other columns and helpers; unused.

        Returns:
            One reward per row; None for a failed row, which TRL leaves out of its group's mean.

        Raises:
            InputError: prompts and completions differ in length.
            UnavailableError: the server or the engine cannot be reached; no reward is invented.
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

    def begin(self, prompt: Any, completion: Any) -> None:
        """Start to score a completion while others are still being generated; returns at once.

        The next `__call__` waits for the score of a row with the same prompt and completion instead
        of scoring it then; the reward has the same bits. What that call does not ask for is
        dropped. The first call may have to load a model.

        Args:
            prompt, completion: exactly as the trainer will pass them: in a conversation, lists of
                messages.

        Raises:
            ConfigError: the target is a FlipReward, which scores only in a call.
        """
        if isinstance(self._target, FlipReward):
            raise ConfigError(
                "begin() needs a scorer of its own: give TrlReward a model, an address or an "
                "AsyncScorer instead of a FlipReward"
            )
        if self._ahead is None:
            self._ahead = ScoredAhead(scorer_of(self._target, **self._options))
        self._ahead.begin(prompt, completion)

    async def flip_reward(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """Score a batch from a coroutine, like `__call__` but without logging."""
        if isinstance(self._target, FlipReward):
            return trainer_rewards(
                await asyncio.to_thread(self._target.score_chats, prompts, completions)
            )
        # Loading a model takes long and must not block the caller's event loop.
        scorer = await asyncio.to_thread(scorer_of, self._target, **self._options)
        batch = await scorer.score_chats(prompts, completions, timeout=self._timeout)
        return trainer_rewards(batch)

    def _score(self, prompts: Sequence[Any], completions: Sequence[Any]) -> ScoreBatch:
        if isinstance(self._target, FlipReward):
            return self._target.score_chats(prompts, completions)
        ahead, self._ahead = self._ahead, None
        scorer = ahead or scorer_of(self._target, **self._options)
        try:
            return background.run(scorer.score_chats(prompts, completions, timeout=self._timeout))
        finally:
            if ahead is not None:
                ahead.drop()


class FlipRewardMixin:
    """Gives one of TRL's environments the FLIP reward of the answer that it gets.

    An environment sees what its tools are called with, not the completion. Call `_flip_answer` in
    the tool that takes the answer: scoring starts at once, and TRL (1.16 or newer) asks for the
    reward when the rollout has ended. The mixin goes before other base classes. Names that TRL
    would offer to the policy as tools begin with an underscore.

    Attributes:
        flip: what scores.
        flip_without_answer: the reward of a rollout in which nothing was answered.
    """

    flip: ClassVar[TrlReward] = TrlReward()
    flip_without_answer: ClassVar[float | None] = 0.0
    _flip_prompt: Any = None
    _flip_scoring: Future[list[float | None]] | None = None

    def reset(self, prompt: Any = None, **columns: Any) -> Any:
        """Begin a rollout.

        Args:
            prompt: the true instruction, a string or messages. Call `super().reset` with another
                one if the dataset's prompt is not it.
            columns: the dataset's other columns; unused.

        Returns:
            None: nothing is added to the prompt.
        """
        self._flip_prompt = prompt
        self._flip_forget()

    async def get_reward(self) -> float | None:
        """Return the last answer's reward; None for a failed row, which TRL leaves out.

        Raises:
            UnavailableError: the server or the engine cannot be reached; no reward is invented.
        """
        if self._flip_scoring is None:
            return self.flip_without_answer
        return (await asyncio.wrap_future(self._flip_scoring))[0]

    def _flip_answer(self, answer: Any) -> None:
        """Take an answer, a string or messages, in place of the one before; does not block."""
        self._flip_forget()
        self._flip_scoring = background.start(self.flip.flip_reward([self._flip_prompt], [answer]))

    def _flip_forget(self) -> None:
        if self._flip_scoring is not None:
            self._flip_scoring.cancel()
        self._flip_scoring = None
