"""The blocking client: runs the asyncio client on this process's background event loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flipfast.client.aio import AsyncFlipClient
from flipfast.scores import ScoreBatch, ScoredRow, trainer_rewards
from flipfast.scoring import background


class FlipClient:
    """Scores on a flipfast server; callable as a TRL reward function.

    Safe to use from many threads at once, which share its connections; may be pickled and used
    after a fork. All calls raise as `AsyncFlipClient.score_row` does.

    Args:
        url, api_key, timeout, caller, max_retries, wait_when_full: see AsyncFlipClient.

    Raises:
        ConfigError: see AsyncFlipClient.
    """

    __name__ = "flip_reward"  # TRL names the reward's metrics after it

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 300.0,
        caller: str = "",
        max_retries: int = 8,
        wait_when_full: bool = False,
    ) -> None:
        self._client = AsyncFlipClient(
            url,
            api_key,
            timeout=timeout,
            caller=caller,
            max_retries=max_retries,
            wait_when_full=wait_when_full,
        )

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any
    ) -> list[float | None]:
        """Score a batch for TRL's trainers; see `FlipReward.__call__`."""
        return trainer_rewards(self.score_chats(prompts, completions))

    def score(
        self,
        instructions: Sequence[str],
        responses: Sequence[str],
        contexts: Sequence[str | None] | None = None,
        *,
        caller: str = "",
        timeout: float | None = None,
    ) -> ScoreBatch:
        """Score a batch of texts; see `AsyncFlipClient.score`."""
        return background.run(
            self._client.score(instructions, responses, contexts, caller=caller, timeout=timeout)
        )

    def score_chats(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        caller: str = "",
        timeout: float | None = None,
    ) -> ScoreBatch:
        """Score a batch of completions in the trainers' format; see `FlipReward.__call__`."""
        return background.run(
            self._client.score_chats(prompts, completions, caller=caller, timeout=timeout)
        )

    def score_row(
        self, instruction: str, response: str, context: str | None = None, *, caller: str = ""
    ) -> ScoredRow:
        """Score one response; see `AsyncFlipClient.score_row`."""
        return background.run(self._client.score_row(instruction, response, context, caller=caller))

    def score_chat(self, prompt: Any, completion: Any, *, caller: str = "") -> ScoredRow:
        """Score one completion; see `AsyncFlipClient.score_chat`."""
        return background.run(self._client.score_chat(prompt, completion, caller=caller))

    def compute_score(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Score one response for verl; see `AsyncFlipClient.compute_score`."""
        return background.run(
            self._client.compute_score(data_source, solution_str, ground_truth, extra_info)
        )

    def __enter__(self) -> FlipClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; they reopen when needed."""
        background.run(self._client.aclose())

    def __repr__(self) -> str:
        return f"FlipClient({self._client.url!r})"
