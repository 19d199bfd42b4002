"""Scorers that need no model."""

from typing import Any

from flipfast.errors import UnavailableError
from flipfast.scores import SCORE_KEYS, ScoredRow
from flipfast.scoring.async_scoring import AsyncScorer


def row(reward: float | None, status: str = "ok", error: str | None = None) -> ScoredRow:
    return dict(zip(SCORE_KEYS, (reward, reward, reward, "", status, 1, 1, error), strict=True))


class FixedScorer(AsyncScorer):
    """Gives one row to all, and keeps what it was asked."""

    def __init__(self, answer: ScoredRow) -> None:
        self.answer = answer
        self.asked: list[tuple[Any, ...]] = []

    async def score_row(
        self, instruction: str, response: str, context: str | None = None, *, caller: str = ""
    ) -> ScoredRow:
        self.asked.append((instruction, response, context))
        return self.answer

    async def score_chat(self, prompt: Any, completion: Any, *, caller: str = "") -> ScoredRow:
        self.asked.append((prompt, completion))
        return self.answer


class StuckScorer(FixedScorer):
    """Never answers where the completion is "stuck"."""

    async def score_chat(self, prompt: Any, completion: Any, *, caller: str = "") -> ScoredRow:
        import asyncio

        if completion == "stuck":
            await asyncio.Event().wait()
        return self.answer


class AwayScorer(FixedScorer):
    """Cannot be reached."""

    async def score_chat(self, prompt: Any, completion: Any, *, caller: str = "") -> ScoredRow:
        raise UnavailableError("nobody is here")


UNPARSED = row(None, "unparsed")
