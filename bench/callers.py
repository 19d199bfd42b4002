"""Many callers of a scorer, in one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

Rows = list[tuple[str, str]]


async def by_callers(
    score_row: Callable[..., Awaitable[dict[str, Any]]], rows: Rows, n_callers: int
) -> tuple[list[float | None], float]:
    """Rewards and rewards/s where callers ask for one row at a time, each for its own."""
    rewards: dict[int, float | None] = {}

    async def call(first: int) -> None:
        for at in range(first, len(rows), n_callers):
            row = await score_row(*rows[at], caller=str(first))
            rewards[at] = row["reward"]

    started = time.perf_counter()
    await asyncio.gather(*(call(first) for first in range(n_callers)))
    seconds = time.perf_counter() - started
    return [rewards[at] for at in range(len(rows))], len(rows) / seconds
