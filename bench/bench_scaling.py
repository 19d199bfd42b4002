"""Rewards/s against rows in a call, threads, the length of responses, and the size of the model.

Real rows go through the embedded model on the CPU: their rewards are those of one call with all of
them, as how many rows or threads there are must not show in a single bit. All other points are
models of random weights that write prescribed outputs, without drafts, which each run checks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import pytest
import torch

from bench.scripted import Script, ScriptedModel, load_shape, script_of
from bench.shapes import n_weights
from bench.sizes import FULL, QUICK, Sizes, Workload
from bench.workloads import Groups, columns, take
from flipfast import FlipReward, _cpu
from flipfast.engine.drafting import Drafting

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
MOST_ROWS = 256  # of one length
N_WARM_UP = 4  # rows

Figures = dict[str, float]
Rows = list[tuple[str, str]]


def sweep(
    benchmark: Any,
    xs: Sequence[float],
    prepare: Callable[[Any], Callable[[], Figures]],
    *,
    names: tuple[str, str],
    series: str,
    rounds: int,
) -> None:
    """Time sweeps over all sizes, after one that is not timed; note medians of the figures.

    For a size `prepare`, whose time does not count, gives a run that returns figures, or raises
    AssertionError where its results are wrong. `names` are those of the size and of the figure that
    is drawn, `series` is the line's.
    """
    for x in xs:
        prepare(x)()
    sweeps: list[list[Figures]] = []
    benchmark.group = f"{names[1]} against {names[0]}"
    benchmark.pedantic(
        lambda runs: sweeps.append([run() for run in runs]),
        setup=lambda: (([prepare(x) for x in xs],), {}),
        rounds=rounds,
    )
    points = [
        {names[0]: x, **{key: median(run[key] for run in runs) for key in runs[0]}}
        for x, runs in zip(xs, zip(*sweeps, strict=True), strict=True)
    ]
    benchmark.extra_info.update(curve=points, x_name=names[0], y_name=names[1], series=series)


@pytest.fixture(scope="module")
def reward() -> Iterator[FlipReward]:
    with FlipReward(device="cpu") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def rows(sizes: Sizes, source: Groups | None) -> Rows:
    """As many as the largest point has; those to warm up with come last."""
    scaling = sizes.scaling["cpu"]
    n = N_WARM_UP + max(*scaling.batches, scaling.least_rows)
    return list(zip(*columns(take(Workload(n, 8), source)), strict=True))[:n]


@pytest.mark.parametrize("by", ["rows_a_call", "threads"])
def bench_rows(benchmark: Any, reward: FlipReward, rows: Rows, sizes: Sizes, by: str) -> None:
    """The same rows in calls of one, of four and so on; in one call with one thread, with two."""
    scaling, usual = sizes.scaling["cpu"], torch.get_num_threads()
    n_cores = len(os.sched_getaffinity(0))
    threads_ = sorted({2**i for i in range(n_cores.bit_length())} | {n_cores})
    xs = scaling.batches if by == "rows_a_call" else threads_
    counted, warm_up = rows[:-N_WARM_UP], rows[-N_WARM_UP:]
    inverter: Any = reward.inverter

    def score(some: Rows, n: int) -> list[float | None]:
        parts = (zip(*some[at : at + n], strict=True) for at in range(0, len(some), n))
        return [x for part in parts for x in reward.score(*map(list, part)).rewards]

    def prepare(x: int) -> Callable[[], Figures]:
        """From no prefix, and with drafts that know the rows to warm up with and no others."""
        mine = counted[: max(x if by == "rows_a_call" else 1, scaling.least_rows)]
        n, threads = (x, usual) if by == "rows_a_call" else (len(mine), x)
        drafting = Drafting(overlap=False)

        def run(some: Rows = mine) -> Figures:
            set_threads(threads)
            inverter.forget_prefixes()
            inverter._model.engine._loop.drafting = drafting
            started = time.perf_counter()
            rewards = score(some, n)
            per_s = len(some) / (time.perf_counter() - started)
            assert some is warm_up or rewards == expected[: len(some)]
            return {"rewards_per_s": per_s}

        run(warm_up)
        return run

    expected = score(counted, len(counted))
    try:
        names = (by, "rewards_per_s")
        sweep(benchmark, xs, prepare, names=names, series="embedded, cpu", rounds=scaling.rounds)
    finally:
        set_threads(usual)


@pytest.fixture(scope="module", params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(device: str, sizes: Sizes) -> Iterator[ScriptedModel]:
    scaling = sizes.scaling[device]
    loaded = load_shape(scaling.shape, device, memory=scaling.memory)
    yield loaded
    loaded.close()


@pytest.mark.parametrize("by", ["rows_a_call", "response_tokens"])
def bench_prescribed(
    benchmark: Any, model: ScriptedModel, device: str, sizes: Sizes, by: str
) -> None:
    """Calls of 1 to thousands of rows; responses of 64 to 16k tokens, more of the short ones."""
    scaling = sizes.scaling[device]
    if device == "cpu" and by == "rows_a_call":
        pytest.skip("real rows show it on a CPU")

    def prepare(x: int) -> Callable[[], Figures]:
        asked = scaling.requests
        if by == "rows_a_call":
            n, asked = x, replace(asked, n=max(x, scaling.least_rows))
        else:
            n = min(max(1, scaling.tokens // x), MOST_ROWS)
            asked = replace(asked, n=n, n_prompt=asked.n_shared + x)
        script = script_of(asked, model)
        places = range(0, asked.n, n)
        parts = [Script(script.prompts[i : i + n], script.outputs[i : i + n]) for i in places]
        return lambda: write(model, parts)

    xs = scaling.batches if by == "rows_a_call" else scaling.lengths
    names, series = (by, "rewards_per_s"), f"{scaling.shape}, {device}"
    sweep(benchmark, xs, prepare, names=names, series=series, rounds=scaling.rounds)


def write(model: ScriptedModel, calls: Sequence[Script]) -> Figures:
    """Have scripts written one after the other; what they share is computed in the first alone."""
    runs = [model.write(call, keep_prefixes=i > 0) for i, call in enumerate(calls)]
    seconds = sum(run.seconds for run in runs)
    rows = [row for call in calls for row in zip(call.prompts, call.outputs, strict=True)]
    n_tokens = sum(len(prompt) + len(output) for prompt, output in rows)
    peak = max(run.peak_pages for run in runs) * model.page_bytes / 2**20
    rates = {"rewards_per_s": len(rows) / seconds, "tokens_per_s": n_tokens / seconds}
    return {**rates, "pages_mib": peak}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        sizes = QUICK if metafunc.config.getoption("--quick") else FULL
        cases = [
            pytest.param((shape, device), id=f"{shape}-{device}", marks=marks)
            for device, marks in (("cpu", ()), ("cuda", pytest.mark.gpu))
            for shape in sizes.scaling[device].models
        ]
        metafunc.parametrize("case", cases, scope="module")


def bench_model(benchmark: Any, case: tuple[str, str], sizes: Sizes) -> None:
    """A point a model."""
    (shape, device), scaling = case, sizes.scaling[case[1]]
    model = load_shape(shape, device, memory=scaling.memory)
    script = script_of(scaling.requests, model)
    weights = n_weights("tiny-32k" if shape == "embedded" else shape) / 1e9
    point = [weights], lambda _: lambda: write(model, [script])
    names = ("weights_in_billions", "rewards_per_s")
    sweep(benchmark, *point, names=names, series=device, rounds=scaling.rounds)
    benchmark.extra_info.update(shape=shape, dtype=model.dtype)
    model.close()


def set_threads(n: int) -> None:
    """As many for torch as for the engine's own kernels."""
    torch.set_num_threads(n)
    _cpu.set_threads(n)
