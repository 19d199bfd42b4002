"""The background loop: coroutines for callers that block."""

import asyncio
import threading

import pytest

from flipfast.scoring import background
from tests.waiting import PATIENCE_S


async def double(n: int) -> int:
    await asyncio.sleep(0)
    return 2 * n


def test_from_many_threads_at_a_time():
    met = threading.Barrier(4)  # asyncio could not run them one after the other
    results = {}

    async def meet(n: int) -> int:
        await asyncio.to_thread(met.wait, PATIENCE_S)
        return await double(n)

    def work(n: int) -> None:
        results[n] = background.run(meet(n))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert results == {n: 2 * n for n in range(4)}


def test_errors_come_back():
    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        background.run(fail())


def test_from_inside_another_loop():
    async def blocks() -> int:
        return background.run(double(3))

    assert asyncio.run(blocks()) == 6


def test_from_inside_itself_it_says_so():
    async def waits_for_itself() -> int:
        return background.run(double(3))

    with pytest.raises(RuntimeError, match="await instead"):
        background.run(waits_for_itself())
