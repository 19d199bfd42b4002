"""Rewards/s of real rows against rows in a call, threads, callers and GPUs.

The embedded model on the CPU; on several GPUs random weights in the shape of Qwen3-0.6B. Every run
starts from an empty prefix cache, and with drafts that know some other rows but nothing of the
runs before. Its rewards are those of one call with all rows: how many rows, threads, callers or
GPUs there are must not show in a single bit of them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.bench_serving import Rows, by_callers
from bench.curves import Curve, Figures, Run
from bench.models import save_random_model
from bench.sizes import Scaling, Sizes, Workload
from bench.workloads import Groups, columns, take
from flipfast import FlipReward, _cpu
from flipfast.config import FlipConfig
from flipfast.engine.drafting import Drafting
from flipfast.serving.async_engine import AsyncFlipEngine
from flipfast.serving.pool import EnginePool

N_WARM_UP = 4  # rows
GPU_SHAPE, GPU_OPTIONS = "qwen3-0.6b", {"device": "cuda", "style": "direct", "max_new_tokens": 32}

Rewards = list[float | None]


@pytest.fixture(scope="module")
def scaling(sizes: Sizes) -> Scaling:
    return sizes.scaling["cpu"]


@pytest.fixture(scope="module")
def all_rows(scaling: Scaling, source: Groups | None) -> Rows:
    """As many as the largest point has; those to warm up with come last."""
    n = N_WARM_UP + max(*scaling.batches, *scaling.callers, scaling.least_rows)
    instructions, responses = columns(take(Workload(n, 8), source))
    return list(zip(instructions, responses, strict=True))[:n]


@pytest.fixture(scope="module")
def rows(all_rows: Rows) -> Rows:
    return all_rows[:-N_WARM_UP]


@pytest.fixture(scope="module")
def warm_up(all_rows: Rows) -> Rows:
    return all_rows[-N_WARM_UP:]


@pytest.fixture(scope="module")
def reward() -> Iterator[FlipReward]:
    with FlipReward(device="cpu") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def expected(reward: FlipReward, rows: Rows) -> Rewards:
    """Of one call with all rows."""
    return score(reward, rows, len(rows))[0]


@pytest.fixture
def threads() -> Iterator[list[int]]:
    """Powers of two up to the cores that there are, and these; afterwards all is as it was."""
    before, n_cores = torch.get_num_threads(), len(os.sched_getaffinity(0))
    yield up_to(n_cores)
    set_threads(before)


def bench_batch(
    benchmark: Any,
    reward: FlipReward,
    rows: Rows,
    warm_up: Rows,
    expected: Rewards,
    scaling: Scaling,
) -> None:
    """The same rows in calls of one, of four and so on."""

    def prepare(n: int) -> Run:
        drafting, mine = warm_drafting(reward, warm_up), rows[: max(n, scaling.least_rows)]

        def run() -> Figures:
            begin(reward, drafting)
            return checked(*score(reward, mine, n), expected)

        return run

    curve = Curve("rows_a_call", "rewards_per_s", "embedded, cpu")
    curve.measure(benchmark, scaling.batches, prepare, rounds=scaling.rounds)


def bench_threads(
    benchmark: Any,
    reward: FlipReward,
    rows: Rows,
    warm_up: Rows,
    expected: Rewards,
    scaling: Scaling,
    threads: list[int],
) -> None:
    mine = rows[: scaling.least_rows]

    def prepare(n: int) -> Run:
        set_threads(n)  # what a step costs with these is learnt, too
        drafting = warm_drafting(reward, warm_up)

        def run() -> Figures:
            set_threads(n)
            begin(reward, drafting)
            return checked(*score(reward, mine, len(mine)), expected)

        return run

    curve = Curve("threads", "rewards_per_s", "embedded, cpu")
    curve.measure(benchmark, threads, prepare, rounds=scaling.rounds)


def bench_callers(
    benchmark: Any,
    reward: FlipReward,
    rows: Rows,
    warm_up: Rows,
    expected: Rewards,
    scaling: Scaling,
) -> None:
    """Concurrent callers of `AsyncFlipEngine`, each asking for one row at a time."""

    def prepare(n: int) -> Run:
        drafting, mine = warm_drafting(reward, warm_up), rows[: max(n, scaling.least_rows)]

        def run() -> Figures:
            begin(reward, drafting)
            engine = AsyncFlipEngine(inverter=reward.inverter)
            try:
                return checked(*asyncio.run(by_callers(engine.score_row, mine, n)), expected)
            finally:
                engine.shut_down()

        return run

    curve = Curve("callers", "rewards_per_s", "embedded, cpu")
    curve.measure(benchmark, scaling.callers, prepare, rounds=scaling.rounds)


@pytest.mark.gpu
def bench_gpus(benchmark: Any, tmp_path: Path, sizes: Sizes, rows: Rows) -> None:
    """A worker a GPU, and all rows in one call."""
    n_gpus = torch.cuda.device_count()
    if n_gpus < 2:
        pytest.skip(f"a curve against GPUs needs two of them, and torch sees {n_gpus}")
    folder = save_random_model(tmp_path / "model", GPU_SHAPE, "cuda")
    config = FlipConfig(model=str(folder), **GPU_OPTIONS)
    alone: Rewards = []

    async def score_with(n: int) -> Figures:
        pool = EnginePool(config, n_workers=n)
        await pool.start()
        try:
            for _ in range(2):  # records and compiles what the second call runs
                batch = await pool.score(*map(list, zip(*rows, strict=True)))
        finally:
            await pool.close()
        alone.extend(batch.rewards[len(alone) :])
        return checked(batch.rewards, batch.stats.rewards_per_s, alone)

    curve = Curve("gpus", "rewards_per_s", f"{GPU_SHAPE}, cuda")
    scaling = sizes.scaling["cuda"]
    curve.measure(
        benchmark,
        up_to(n_gpus),
        lambda n: lambda: asyncio.run(score_with(n)),
        rounds=scaling.rounds,
    )


def warm_drafting(reward: FlipReward, rows: Rows) -> Drafting:
    """Drafts as they are after these rows alone."""
    drafting = Drafting(overlap=False)
    begin(reward, drafting)
    score(reward, rows, len(rows))
    return drafting


def begin(reward: FlipReward, drafting: Drafting) -> None:
    """Have an engine on the CPU know nothing but these drafts."""
    inverter: Any = reward.inverter
    inverter.forget_prefixes()
    inverter._model.engine._drafting = drafting


def score(reward: FlipReward, rows: Rows, n: int) -> tuple[Rewards, float]:
    """Rewards of calls of n rows, and rewards/s."""
    found: Rewards = []
    started = time.perf_counter()
    for at in range(0, len(rows), n):
        found += reward.score(*map(list, zip(*rows[at : at + n], strict=True))).rewards
    return found, len(rows) / (time.perf_counter() - started)


def checked(rewards: Sequence[float | None], per_s: float, expected: Rewards) -> Figures:
    """The figure, if the rewards are the first of those expected."""
    assert list(rewards) == expected[: len(rewards)]
    return {"rewards_per_s": per_s}


def up_to(n: int) -> list[int]:
    """Powers of two, and at the end n."""
    return sorted({2**i for i in range(n.bit_length())} | {n})


def set_threads(n: int) -> None:
    """As many for torch as for the engine's own kernels."""
    torch.set_num_threads(n)
    _cpu.set_threads(n)
