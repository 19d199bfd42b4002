"""Waiting for what is sure to come, on a machine of any load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PATIENCE_S = 300.0  # until a test that hangs fails: nothing that works comes near it
# For a call that has something to do within its timeout, beside something that never ends: the
# first one that the load leaves enough of.
TIMEOUTS_S = (0.2, 2.0, 20.0, 200.0)


def wait_until(condition: Callable[[], object]) -> None:
    """Block until something has come true."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it has not come true"
        time.sleep(0.005)


async def until(condition: Callable[[], object]) -> None:
    """Let others run until something has come true."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it has not come true"
        await asyncio.sleep(0.002)
