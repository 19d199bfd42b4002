"""What serving costs against a batch in this process, on the same rows and to the same rewards.

The embedded model on the CPU; server, callers and engine share the machine's cores. Every way
starts with an engine of its own that has scored some other groups, and scores each row once. What
pytest prints is the time of the way that is looked at; figures and ratios are in `extra_info`.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

import psutil
import pytest

from bench.sizes import Sizes
from bench.workloads import Groups, columns, take
from flipfast import FlipReward
from flipfast.client import AsyncFlipClient, FlipClient

N_WARM_UP = 4  # groups
START_SECONDS = 120.0

Rows = list[tuple[str, str]]


class Asked(NamedTuple):
    """The rows that count, and those to warm up with."""

    counted: Rows
    warm_up: Rows


@pytest.fixture(scope="module")
def rows(sizes: Sizes, source: Groups | None) -> Asked:
    groups = take(sizes.workloads["rl-step"], source, n_more=N_WARM_UP)
    parts = (columns(groups[:-N_WARM_UP]), columns(groups[-N_WARM_UP:]))
    return Asked(*(list(zip(*part, strict=True)) for part in parts))


def in_process(rows: Asked) -> tuple[list[float | None], float]:
    """Rewards of one batch, and rewards/s."""
    counted, warm_up = rows
    with FlipReward() as reward:
        reward.score(*map(list, zip(*warm_up, strict=True)))
        batch = reward.score(*map(list, zip(*counted, strict=True)))
    return batch.rewards, batch.stats.rewards_per_s


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


@contextmanager
def server(*options: str) -> Iterator[tuple[str, psutil.Process]]:
    """The address of a server in a process of its own, and that process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "flipfast", "serve", "--port", str(port), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        await_ready(url, process)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def await_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server can score."""
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=5):
                return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the server at {url} did not get ready: {error}") from error
            time.sleep(0.1)


def bench_many_callers(benchmark: Any, rows: Asked, sizes: Sizes) -> None:
    """Rewards/s of a server with callers that ask for a row at a time, over those of a batch."""
    counted, warm_up = rows
    pairs: list[tuple[float, float]] = []

    async def ask(url: str) -> tuple[list[float | None], float]:
        client = AsyncFlipClient(url, timeout=600)
        await by_callers(client.score_row, warm_up, sizes.callers)
        found = await by_callers(client.score_row, counted, sizes.callers)
        await client.aclose()
        return found

    def compare() -> None:
        expected, batch = in_process(rows)
        with server() as (url, _):
            rewards, served = asyncio.run(ask(url))
        assert rewards == expected
        pairs.append((served, batch))

    benchmark.group = "server, cpu"
    benchmark.pedantic(compare, rounds=sizes.rounds)
    benchmark.extra_info.update(
        callers=sizes.callers,
        batch_rewards_per_s=median(batch for _, batch in pairs),
        served_rewards_per_s=median(served for served, _ in pairs),
        ratio=round(median(served / batch for served, batch in pairs), 3),
    )


def bench_added_latency(benchmark: Any, rows: Asked, sizes: Sizes) -> None:
    """Milliseconds that client and HTTP add for one caller: rows whose results are kept."""
    counted = rows.counted
    few = counted[:32]
    kept = ["--cache-rewards", "1000"]
    benchmark.group = "server, cpu"
    with FlipReward(cache_rewards=1000) as reward, server(*kept) as (url, _):
        client = FlipClient(url)
        ways: list[Callable[..., Any]] = [
            lambda x, y: reward.score([x], [y]).rewards[0],
            lambda x, y: client.score_row(x, y)["reward"],
        ]
        expected, found = ([way(*row) for row in few] for way in ways)
        assert expected == found
        times: list[list[float]] = [[], []]
        for _ in range(sizes.latency_rounds):
            for row in few:
                for way, seconds in zip(ways, times, strict=True):
                    started = time.perf_counter()
                    way(*row)
                    seconds.append(time.perf_counter() - started)
        benchmark(ways[1], *few[0])
    here, there = map(sorted, times)
    benchmark.extra_info.update(
        in_process_ms=round(1e3 * median(here), 3),
        served_ms=round(1e3 * median(there), 3),
        added_ms=round(1e3 * (median(there) - median(here)), 3),
        served_p99_ms=round(1e3 * there[int(0.99 * len(there))], 3),
    )


def bench_overload(benchmark: Any, rows: Asked, sizes: Sizes) -> None:
    """Ten times as many rows as a server can take: what is answered how, and its memory."""
    counted = rows.counted
    expected = dict(zip(counted, in_process(rows)[0], strict=True))
    benchmark.group = "server, cpu"

    async def press(url: str) -> Counter[str]:
        answers: Counter[str] = Counter()
        # Each has some connections of its own, and all together one for every row of a burst.
        clients = [AsyncFlipClient(url, max_retries=0, timeout=600) for _ in range(10)]

        async def call(at: int) -> None:
            row = counted[at % len(counted)]
            try:
                found = await clients[at % len(clients)].score_row(*row)
            except Exception as error:  # every answer is counted
                answers[type(error).__name__] += 1
            else:
                assert found["reward"] == expected[row]
                answers["reward"] += 1

        for _ in range(sizes.bursts):
            await asyncio.gather(*(call(at) for at in range(10 * sizes.queue)))
        for client in clients:
            await client.aclose()
        return answers

    with server("--max-queue", str(sizes.queue)) as (url, process):
        asyncio.run(press(url))
        before = memory(process)
        answers = benchmark.pedantic(lambda: asyncio.run(press(url)), rounds=1)
        after = memory(process)
    assert set(answers) <= {"reward", "QueueFullError", "UnavailableError"}, answers
    benchmark.extra_info.update(
        answers=dict(answers), asked=sum(answers.values()), memory_mib=[before, after]
    )


def bench_ray_actors(benchmark: Any, rows: Asked, sizes: Sizes) -> None:
    """Rewards/s of two Ray actors with a thread each, over those of one engine with two threads."""
    if not sizes.more_cases:
        pytest.skip("with --quick there is no time to start Ray")
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    from flipfast.serving.async_engine import AsyncFlipEngine
    from flipfast.serving.ray import RayPool

    pairs: list[tuple[float, float]] = []
    benchmark.group = "Ray, cpu"

    async def score(scorer: Any) -> tuple[list[float | None], float]:
        counted, warm_up = (list(map(list, zip(*part, strict=True))) for part in rows)
        for _ in range(2):  # both actors get to know it
            await scorer.score(*warm_up)
        batch = await scorer.score(*counted)
        await scorer.close()
        return batch.rewards, batch.stats.rewards_per_s

    async def with_ray() -> tuple[list[float | None], float]:
        pool = RayPool(n_actors=2)
        await pool.start(n_ready=2)
        return await score(pool)

    async def without() -> tuple[list[float | None], float]:
        return await score(AsyncFlipEngine())

    def compare() -> None:
        expected, engine = asyncio.run(without())
        rewards, actors = asyncio.run(with_ray())
        assert rewards == expected
        pairs.append((actors, engine))

    ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False
    )
    try:
        benchmark.pedantic(compare, rounds=sizes.rounds)
    finally:
        ray.shutdown()
    benchmark.extra_info.update(
        engine_rewards_per_s=median(engine for _, engine in pairs),
        actors_rewards_per_s=median(actors for actors, _ in pairs),
        ratio=round(median(actors / engine for actors, engine in pairs), 3),
    )


def memory(process: psutil.Process) -> int:
    """MiB that a server and its engines hold."""
    family = [process, *process.children(recursive=True)]
    return sum(int(member.memory_info().rss) for member in family) >> 20
