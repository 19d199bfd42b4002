"""What a server needs of an engine, in this process or in others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flipfast.backends import SamplingParams
from flipfast.scoring.async_scoring import AsyncScorer


@dataclass(frozen=True)
class Completion:
    """What the model wrote.

    Attributes:
        text: special tokens left out.
        finish_reason: "stop" or "length".
        n_prompt_tokens, n_output_tokens: of the two.
    """

    text: str
    finish_reason: str
    n_prompt_tokens: int
    n_output_tokens: int


@dataclass(frozen=True)
class EngineStatus:
    """How an engine is doing.

    Attributes:
        state: "ready", "asleep", "starting", where nothing can be scored yet, or "failed".
        model: its name.
        queued: rows that wait to enter the engine.
        running: rows in it.
        counters: totals so far; those of EngineCounters where the engine is the native one, and
            "rewards" and "failed_rewards".
    """

    state: str
    model: str
    queued: int
    running: int
    counters: Mapping[str, int]


class ServedScorer(AsyncScorer):
    """A scorer that a server can stand before."""

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
            messages: with "role" and "content", both strings.
            sampling: how tokens are chosen, and how many there may be.
            seed: of the random choices.
            caller: as for `score_row`.

        Raises:
            InputError: the conversation cannot be rendered or does not fit the model.
            QueueFullError, UnavailableError: as for `score_row`.
        """

    @abstractmethod
    def status(self) -> EngineStatus:
        """How the engine is doing, from what is known here: asks nobody."""

    @abstractmethod
    async def sleep(self, *, drop_weights: bool = False) -> None:
        """Let what is in the engine end, then give its memory back; see `LoadedModel.sleep`.

        Until `wake` all calls that need the engine raise UnavailableError.
        """

    @abstractmethod
    async def wake(self) -> None:
        """Be usable again after `sleep`."""

    @abstractmethod
    async def update_weights(self, folder: str) -> None:
        """Let what is in the engine end, then take the weights of a folder with safetensors."""

    @abstractmethod
    async def close(self) -> None:
        """Stop at once; what has not ended raises UnavailableError."""
