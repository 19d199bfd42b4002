"""Engines for tests on Ray, which the actors import."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from flipfast import FlipConfig, FlipReward, ScoreBatch
from flipfast.scores import ScoredRow
from flipfast.serving.async_engine import AsyncFlipEngine

POISON = "this row ends the process"


class MortalEngine(AsyncFlipEngine):
    """Takes its process with it where a response asks for that.

    Args:
        config: of the engine.
        hold: a file; while it is there, the response that it holds waits.
    """

    def __init__(self, config: FlipConfig, hold: str | None) -> None:
        super().__init__(config=config)
        self._hold = hold

    async def score_row(self, instruction: str, response: str, *args: Any, **how: Any) -> ScoredRow:
        if response == POISON:
            os._exit(1)
        while response == self._held():
            await asyncio.sleep(0.01)
        return await super().score_row(instruction, response, *args, **how)

    def _held(self) -> str | None:
        try:
            return None if self._hold is None else Path(self._hold).read_text()
        except FileNotFoundError:
            return None


def mortal_engine(config: FlipConfig, hold: str | None = None) -> MortalEngine:
    return MortalEngine(config, hold)


def clumsy_reward(config: FlipConfig, *, flag: str, response: str) -> FlipReward:
    """A reward whose process ends when a response comes up for the first time."""

    class ClumsyReward(FlipReward):
        def score(self, instructions: Any, responses: Any, *args: Any, **how: Any) -> ScoreBatch:
            if response in responses and not Path(flag).exists():
                Path(flag).touch()
                os._exit(1)
            return super().score(instructions, responses, *args, **how)

    return ClumsyReward(config)
