"""What serving costs against a batch in this process, on the same rows and to the same rewards.

The embedded model on the CPU; server, callers and engine share the machine's cores. Every way
starts with an engine of its own that has scored some other groups, and scores each row once. What
pytest prints is the time of the way that is looked at; figures and ratios are in `extra_info`.
"""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest

from bench.sizes import FULL, Sizes, Workload
from bench.workloads import Groups, columns, take
from flipfast import FlipReward
from flipfast.client import AsyncFlipClient, FlipClient

N_WARM_UP = 4  # groups
START_SECONDS = 120.0

Rows = list[tuple[str, str]]
Rewards = list[float | None]
Served = tuple[Rewards, float]  # and rewards/s
ScoreRow = Callable[..., Awaitable[dict[str, Any]]]


class Asked(NamedTuple):
    """The rows that count, and those to warm up with."""

    counted: Rows
    warm_up: Rows


def asked(workload: Workload, source: Groups | None) -> Asked:
    """Those of a workload."""
    groups = take(workload, source, n_more=N_WARM_UP)
    parts = (columns(groups[:-N_WARM_UP]), columns(groups[-N_WARM_UP:]))
    return Asked(*(list(zip(*part, strict=True)) for part in parts))


@pytest.fixture(scope="module")
def rows(sizes: Sizes, source: Groups | None) -> Asked:
    return asked(sizes.workloads["rl-step"], source)


def in_process(rows: Asked) -> Served:
    """Rewards of one batch."""
    counted, warm_up = rows
    with FlipReward() as reward:
        reward.score(*map(list, zip(*warm_up, strict=True)))
        batch = reward.score(*map(list, zip(*counted, strict=True)))
    return batch.rewards, batch.stats.rewards_per_s


async def by_callers(score_row: ScoreRow, rows: Rows, n_callers: int) -> Served:
    """Callers ask for one row at a time, each for its own."""
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
    """The address of a server in a process of its own, and that process, once it can score."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "flipfast", "serve", "--port", str(port), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/ready", timeout=5).close()
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"the server at {url} did not get ready: {error}") from error
                time.sleep(0.1)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def compare(
    benchmark: Any, rounds: int, plain: Callable[[], Served], way: Callable[[], Served]
) -> Any:
    """Time pairs of both ways, whose rewards must be equal; rewards/s of each, median ratio."""
    pairs: list[tuple[float, float]] = []

    def pair() -> None:
        (expected, plain_per_s), (rewards, way_per_s) = plain(), way()
        assert rewards == expected
        pairs.append((plain_per_s, way_per_s))

    benchmark.pedantic(pair, rounds=rounds)
    ratio = round(median(b / a for a, b in pairs), 3)
    return median(a for a, _ in pairs), median(b for _, b in pairs), ratio


def bench_many_callers(benchmark: Any, rows: Asked, sizes: Sizes) -> None:
    """Rewards/s of a server with callers that ask for a row at a time, over those of a batch."""

    async def ask(url: str) -> Served:
        client = AsyncFlipClient(url, timeout=600)
        await by_callers(client.score_row, rows.warm_up, sizes.callers)
        found = await by_callers(client.score_row, rows.counted, sizes.callers)
        await client.aclose()
        return found

    def served() -> Served:
        with server() as (url, _):
            return asyncio.run(ask(url))

    benchmark.group = "server, cpu"
    batch, per_s, ratio = compare(benchmark, sizes.rounds, lambda: in_process(rows), served)
    benchmark.extra_info.update(
        callers=sizes.callers, batch_rewards_per_s=batch, served_rewards_per_s=per_s, ratio=ratio
    )


def bench_added_latency(benchmark: Any, rows: Asked, sizes: Sizes) -> None:
    """Milliseconds that client and HTTP add for one caller: rows whose results are kept."""
    few = rows.counted[:32]
    benchmark.group = "server, cpu"
    with FlipReward(cache_rewards=99) as reward, server("--cache-rewards", "99") as (url, _):
        client = FlipClient(url)
        ways: list[Callable[..., Any]] = [
            lambda x, y: reward.score([x], [y]).rewards[0],
            lambda x, y: client.score_row(x, y)["reward"],
        ]
        assert [ways[0](*row) for row in few] == [ways[1](*row) for row in few]
        times: list[list[float]] = [[], []]
        for row in few * sizes.latency_rounds:
            for way, seconds in zip(ways, times, strict=True):
                started = time.perf_counter()
                way(*row)
                seconds.append(time.perf_counter() - started)
        benchmark(ways[1], *few[0])
    here, there = (1e3 * median(seconds) for seconds in times)
    benchmark.extra_info.update(
        in_process_ms=round(here, 3), served_ms=round(there, 3), added_ms=round(there - here, 3)
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
        before = memory_mib(process)
        answers = benchmark.pedantic(lambda: asyncio.run(press(url)), rounds=1)
        after = memory_mib(process)
    assert set(answers) <= {"reward", "QueueFullError", "UnavailableError"}, answers
    benchmark.extra_info.update(
        answers=dict(answers), asked=sum(answers.values()), memory_mib=[before, after]
    )


def memory_mib(process: psutil.Process) -> int:
    """What a server and its engines hold."""
    family = [process, *process.children(recursive=True)]
    return sum(int(member.memory_info().rss) for member in family) >> 20


def bench_ray_actors(benchmark: Any, rows: Asked, sizes: Sizes) -> None:
    """Rewards/s of two Ray actors with a thread each, over those of one engine with two threads."""
    if not sizes.more_cases:
        pytest.skip("with --quick there is no time to start Ray")
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    from flipfast.serving.async_engine import AsyncFlipEngine
    from flipfast.serving.ray import RayPool

    async def score(scorer: Any) -> Served:
        counted, warm_up = (list(map(list, zip(*part, strict=True))) for part in rows)
        for _ in range(2):  # both actors get to know it
            await scorer.score(*warm_up)
        batch = await scorer.score(*counted)
        await scorer.close()
        return batch.rewards, batch.stats.rewards_per_s

    async def with_ray() -> Served:
        pool = RayPool(n_actors=2)
        await pool.start(n_ready=2)
        return await score(pool)

    def without() -> Served:
        return asyncio.run(score(AsyncFlipEngine()))

    benchmark.group = "Ray, cpu"
    ray.init(num_cpus=2, object_store_memory=10**8, include_dashboard=False, log_to_driver=False)
    try:
        ways = without, lambda: asyncio.run(with_ray())
        engine, actors, ratio = compare(benchmark, sizes.rounds, *ways)
    finally:
        ray.shutdown()
    benchmark.extra_info.update(
        engine_rewards_per_s=engine, actors_rewards_per_s=actors, ratio=ratio
    )


@pytest.mark.parametrize("share", FULL.stream_shares)
def bench_stream(
    benchmark: Any, pytestconfig: pytest.Config, sizes: Sizes, source: Groups | None, share: float
) -> None:
    """Latency of rows that arrive at random, at a share of a batch's rewards/s or at `--rate`."""
    given = pytestconfig.getoption("--rate")
    if share not in sizes.stream_shares or (given and share != sizes.stream_shares[0]):
        pytest.skip("not at this size, or not with --rate")
    rows = asked(sizes.workloads["stream"], source)
    expected, capacity = in_process(rows)
    rate = given or share * capacity
    due = arrival_times(len(rows.counted), rate)
    benchmark.group = "stream, at a given rate" if given else f"stream, {share}"
    with server() as (url, _):
        client = AsyncFlipClient(url)
        asyncio.run(by_callers(client.score_row, rows.warm_up, 1))
        run = partial(send, client.score_row, rows.counted, due, expected)
        latencies = benchmark.pedantic(lambda: asyncio.run(run()), rounds=1)
    found = {f"p{x}_ms": 1e3 * float(np.percentile(latencies, x)) for x in (50, 90, 99)}
    benchmark.extra_info.update(rate=rate, share_of_capacity=rate / capacity, **found)


def arrival_times(n: int, rows_per_s: float, seed: int = 0) -> list[float]:
    """Seconds after the start at which n rows are due: a Poisson process."""
    rng = random.Random(seed)
    return list(accumulate(rng.expovariate(rows_per_s) for _ in range(n)))


async def send(
    score_row: ScoreRow, rows: Rows, due: Sequence[float], expected: Rewards
) -> list[float]:
    """Ask for each row when it is due; seconds from then to its reward, which must be as expected.

    A row that is sent late, because the machine was busy, has its waiting counted.
    """
    clock = asyncio.get_running_loop().time
    started = clock()

    async def ask(at: int) -> float:
        await asyncio.sleep(started + due[at] - clock())
        row = await score_row(*rows[at])
        assert row["reward"] == expected[at], (rows[at][0], row)
        return clock() - started - due[at]

    return await asyncio.gather(*map(ask, range(len(rows))))
