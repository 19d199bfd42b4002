"""Single rows that arrive at times of their own, whether or not earlier ones are done."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Served:
    """How a stream was served.

    Attributes:
        latencies: seconds from when each row was due to its reward.
        rows_per_s: rows over the time from the first one's being due to the last reward.
    """

    latencies: list[float]
    rows_per_s: float

    def ms(self, share: float) -> float:
        """The milliseconds within which this share of the rows had their rewards."""
        return 1e3 * float(np.quantile(self.latencies, share, method="inverted_cdf"))


def arrival_times(n: int, rows_per_s: float, seed: int = 0) -> list[float]:
    """Seconds after the start at which n rows are due: a Poisson process."""
    rng = random.Random(seed)
    return list(accumulate(rng.expovariate(rows_per_s) for _ in range(n)))


async def send(
    score_row: Callable[..., Awaitable[Any]],
    rows: Sequence[tuple[str, str]],
    due: Sequence[float],
    expected: Sequence[float | None],
) -> Served:
    """Ask for each row when it is due.

    A row that is sent late, because the machine was busy, has its waiting counted.

    Args:
        score_row: from an instruction and a response to a row with its reward.
        rows: instructions and responses.
        due: seconds after the start, rising.
        expected: the rewards.

    Raises:
        AssertionError: a reward is another one.
    """
    clock = asyncio.get_running_loop().time
    started = clock()

    async def ask(at: int) -> float:
        await asyncio.sleep(started + due[at] - clock())
        row = await score_row(*rows[at])
        assert row["reward"] == expected[at], (rows[at][0], row)
        return clock() - started

    ends = await asyncio.gather(*map(ask, range(len(rows))))
    latencies = [end - begin for end, begin in zip(ends, due, strict=True)]
    return Served(latencies, len(rows) / (max(ends) - due[0]))
