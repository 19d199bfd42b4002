"""One row at a time: what engines and clients offer to callers that do not hold batches."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any

from flipfast.scores import ScoreBatch, ScoredRow, check_lengths, failed_row


class AsyncScorer(ABC):
    """Scores rows as they come, many at a time, for asyncio code.

    A row depends on its own texts, the model and its options alone. Cancelling a call drops its
    rows: they take no more time and their memory is free.
    """

    @abstractmethod
    async def score_row(
        self, instruction: str, response: str, context: str | None = None, *, caller: str = ""
    ) -> ScoredRow:
        """Score one response.

        Args:
            instruction: the true one.
            response: the response.
            context: what came before it, or None.
            caller: whom the row is for; callers take turns.

        Returns:
            The row. Bad input becomes a row with status "error".

        Raises:
            QueueFullError: too many rows wait; none of them is dropped.
            UnavailableError: nothing can be scored now.
        """

    @abstractmethod
    async def score_chat(self, prompt: Any, completion: Any, *, caller: str = "") -> ScoredRow:
        """Score one completion as trainers have it; see `FlipReward.__call__` for the two."""

    async def score(
        self,
        instructions: Sequence[str],
        responses: Sequence[str],
        contexts: Sequence[str | None] | None = None,
        *,
        caller: str = "",
        timeout: float | None = None,
    ) -> ScoreBatch:
        """Score a batch of texts; see `FlipReward.score`.

        Args:
            timeout: seconds; rows that are not done by then are dropped, and have the status
                "error".

        Raises:
            InputError: the sequences differ in length.
        """
        return await _batch(self._tasks(instructions, responses, contexts, caller), timeout)

    async def score_chats(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        caller: str = "",
        timeout: float | None = None,
    ) -> ScoreBatch:
        """Score a batch of completions as trainers have them; see `score`.

        Raises:
            InputError: the two differ in length.
        """
        check_lengths(prompts=prompts, completions=completions)
        tasks = [
            asyncio.create_task(self.score_chat(*pair, caller=caller))
            for pair in zip(prompts, completions, strict=True)
        ]
        return await _batch(tasks, timeout)

    async def stream(
        self,
        instructions: Sequence[str],
        responses: Sequence[str],
        contexts: Sequence[str | None] | None = None,
        *,
        caller: str = "",
    ) -> AsyncIterator[tuple[int, ScoredRow]]:
        """Score a batch of texts, and give each row and its place as soon as it is done.

        Raises:
            InputError: the sequences differ in length.
        """
        tasks = self._tasks(instructions, responses, contexts, caller)

        async def numbered(at: int, task: asyncio.Task[ScoredRow]) -> tuple[int, ScoredRow]:
            return at, await task

        try:
            for done in asyncio.as_completed([numbered(*pair) for pair in enumerate(tasks)]):
                yield await done
        finally:
            await drop(tasks)

    def _tasks(
        self,
        instructions: Sequence[str],
        responses: Sequence[str],
        contexts: Sequence[str | None] | None,
        caller: str,
    ) -> list[asyncio.Task[ScoredRow]]:
        given = [None] * len(instructions) if contexts is None else contexts
        check_lengths(instructions=instructions, responses=responses, contexts=given)
        return [
            asyncio.create_task(self.score_row(*texts, caller=caller))
            for texts in zip(instructions, responses, given, strict=True)
        ]


async def _batch(tasks: list[asyncio.Task[ScoredRow]], timeout: float | None) -> ScoreBatch:
    started = time.perf_counter()
    try:
        if tasks:
            await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_EXCEPTION)
        late = failed_row(f"not done within {timeout} s")
        rows = [task.result() if task.done() else late for task in tasks]
    finally:
        await drop(tasks)
    return ScoreBatch.from_dicts(rows, time.perf_counter() - started)


async def drop(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel those that are not done, and have all of them ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
