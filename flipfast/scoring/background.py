"""A background event loop in its own thread, for callers that are not asynchronous."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on this process's background loop and wait for its result.

    Safe from any thread, many at a time. If the wait is interrupted, the coroutine is cancelled.

    Raises:
        RuntimeError: called from a coroutine of that loop, which would wait for itself.
    """
    if asyncio._get_running_loop() is _running_loop():
        work.close()
        raise RuntimeError("a call that blocks was made from the background loop: await instead")
    future = start(work)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def start(work: Coroutine[Any, Any, Result]) -> Future[Result]:
    """Start a coroutine on this process's background loop; safe from any thread.

    Cancelling the future cancels the coroutine.
    """
    return asyncio.run_coroutine_threadsafe(work, _running_loop())


def _running_loop() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="flipfast-loop", daemon=True).start()
        return _loop


def _forget() -> None:
    """Reset after a fork: the child inherits the lock and the loop, but not the loop's thread."""
    global _lock, _loop
    _lock, _loop = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
