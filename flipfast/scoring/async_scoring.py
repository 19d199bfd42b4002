"""Asynchronous row-by-row scoring: the interface that engines and clients share."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any

from flipfast.scores import ScoreBatch, ScoredRow, check_lengths, failed_row


class AsyncScorer(ABC):
    """Scores rows as they arrive, many at a time, for asyncio code.

    A row's scores depend only on its own texts, the model and its options. Cancelling a call drops
    its rows: they take no more time, and their memory is freed.
    """

    @abstractmethod
    async def score_row(
        self, instruction: str, response: str, context: str | None = None, *, caller: str = ""
    ) -> ScoredRow:
        """Score one response.

        Args:
            instruction: the true instruction.
            response: the response.
            context: the conversation before it, or None.
            caller: who the row is for; callers are served in turn.

        Returns:
            The row's scores. Invalid input gives a row with status "error".

        Raises:
            QueueFullError: too many rows are waiting; those stay queued.
            UnavailableError: nothing can be scored now.
        """

    @abstractmethod
    async def score_chat(self, prompt: Any, completion: Any, *, caller: str = "") -> ScoredRow:
        """Score one completion in a trainer's format; see `FlipReward.__call__`."""

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
            timeout: seconds; rows not done by then are dropped and get the status "error".

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
        """Score a batch of completions in a trainer's format; see `score`.

        Raises:
            InputError: prompts and completions differ in length.
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
        """Score a batch of texts, and yield each row's index and scores as soon as it is done.

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
        check_lengths(instructions=instructions, responses=responses)
        given = [None] * len(instructions) if contexts is None else contexts
        check_lengths(instructions=instructions, contexts=given)
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
    """Cancel the tasks that are not done, and wait until all have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
