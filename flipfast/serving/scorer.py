"""The interface between a server and its engine, in this process or in others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flipfast.engine.sampling import SamplingParams
from flipfast.scoring.async_scoring import AsyncScorer


@dataclass(frozen=True)
class Completion:
    """The model's answer to a conversation.

    Attributes:
        text: without special tokens.
        finish_reason: "stop" or "length".
        n_prompt_tokens, n_output_tokens: token counts.
    """

    text: str
    finish_reason: str
    n_prompt_tokens: int
    n_output_tokens: int


@dataclass(frozen=True)
class EngineStatus:
    """The state of an engine.

    Attributes:
        state: "ready", "asleep", "starting" (nothing can be scored yet) or "failed".
        model: its name.
        queued: rows waiting to enter the engine.
        running: rows in the engine.
        counters: totals so far: those of EngineCounters for the native engine, plus "rewards" and
            "failed_rewards".
    """

    state: str
    model: str
    queued: int
    running: int
    counters: Mapping[str, int]


class ServedScorer(AsyncScorer):
    """A scorer that a server can expose."""

    @abstractmethod
    async def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        sampling: SamplingParams,
        *,
        seed: int = 0,
        caller: str = "",
    ) -> Completion:
        """Have the model answer a conversation, through its own chat template.

        Args:
            messages: dicts with "role" and "content", both strings.
            sampling: how tokens are sampled, and at most how many.
            seed: of the sampling.
            caller: as for `score_row`.

        Raises:
            InputError: the conversation cannot be rendered or does not fit the model.
            QueueFullError, UnavailableError: as for `score_row`.
        """

    @abstractmethod
    def status(self) -> EngineStatus:
        """Return the engine's status as known in this process, without communication."""

    @abstractmethod
    async def sleep(self, *, drop_weights: bool = False) -> None:
        """Finish the rows in the engine, then release its memory; see `LoadedModel.sleep`.

        Until `wake`, all calls that need the engine raise UnavailableError.
        """

    @abstractmethod
    async def wake(self) -> None:
        """Make the engine usable again after `sleep`."""

    @abstractmethod
    async def update_weights(self, folder: str) -> None:
        """Finish the rows in the engine, then load the weights from a folder of safetensors."""

    @abstractmethod
    async def close(self) -> None:
        """Stop immediately; unfinished calls raise UnavailableError."""
