"""Scores rows ahead of the call that asks for them."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any

from flipfast.scores import ScoredRow
from flipfast.scoring import background
from flipfast.scoring.async_scoring import AsyncScorer


class ScoredAhead(AsyncScorer):
    """Passes rows on to a scorer, except those that it has begun: it waits for their scores.

    Args:
        scorer: scores the rows.
    """

    def __init__(self, scorer: AsyncScorer) -> None:
        self._scorer = scorer
        self._begun: dict[str, Future[ScoredRow]] = {}

    def begin(self, prompt: Any, completion: Any) -> None:
        """Start to score a completion in a trainer's format; returns at once."""
        key = _key(prompt, completion)
        if key not in self._begun:  # equal texts have equal scores
            self._begun[key] = background.start(self._scorer.score_chat(prompt, completion))

    def drop(self) -> None:
        """Cancel what has not ended."""
        for future in self._begun.values():
            future.cancel()

    async def score_row(
        self, instruction: str, response: str, context: str | None = None, *, caller: str = ""
    ) -> ScoredRow:
        """Score one response; see `AsyncScorer.score_row`."""
        return await self._scorer.score_row(instruction, response, context, caller=caller)

    async def score_chat(self, prompt: Any, completion: Any, *, caller: str = "") -> ScoredRow:
        """Score one completion, or wait for its score; see `AsyncScorer.score_chat`."""
        begun = self._begun.get(_key(prompt, completion))
        if begun is not None:
            return await asyncio.wrap_future(begun)
        return await self._scorer.score_chat(prompt, completion, caller=caller)


def _key(prompt: Any, completion: Any) -> str:
    return repr((prompt, completion))  # messages are dictionaries, which have no hash
