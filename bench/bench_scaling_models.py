"""Rewards/s against the size of the model: the same prescribed outputs, without drafts.

Random weights in the models' shapes, checked and timed in every run. A benchmark a model, a point
of the curve each. On CUDA models come in the order of bench.sizes until their time is spent; on the
CPU Qwen3-0.6B takes a minute; `-k embedded` leaves it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from time import perf_counter
from typing import Any

import pytest

from bench.curves import Curve
from bench.scripted import Run, ScriptedModel, load_shape, script_of
from bench.shapes import n_weights
from bench.sizes import FULL, QUICK, Scaling, Sizes


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    sizes = QUICK if metafunc.config.getoption("--quick") else FULL
    cases = [
        pytest.param((shape, device), id=f"{shape}-{device}", marks=marks)
        for device, marks in (("cpu", ()), ("cuda", pytest.mark.gpu))
        for shape in sizes.scaling[device].models
    ]
    metafunc.parametrize("case", cases, indirect=True, scope="module")


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A shape and a device."""
    found: tuple[str, str] = request.param
    return found


@pytest.fixture(scope="module")
def spent() -> dict[str, float]:
    """Seconds that the models of a device have taken so far."""
    return {"cpu": 0.0, "cuda": 0.0}


@pytest.fixture(scope="module")
def scaling(case: tuple[str, str], sizes: Sizes) -> Scaling:
    return sizes.scaling[case[1]]


@pytest.fixture
def model(
    case: tuple[str, str], scaling: Scaling, spent: dict[str, float]
) -> Iterator[ScriptedModel]:
    shape, device = case
    if spent[device] > scaling.models_s:
        pytest.skip(f"the {scaling.models_s:.0f} seconds for models on {device} are spent")
    started = perf_counter()
    loaded = load_shape(shape, device, memory=scaling.memory)
    yield loaded
    loaded.close()
    spent[device] += perf_counter() - started


def bench_model(
    benchmark: Any, case: tuple[str, str], model: ScriptedModel, scaling: Scaling
) -> None:
    (shape, device), asked = case, scaling.requests
    script, curve = script_of(asked, model), Curve("weights_in_billions", "rewards_per_s", device)
    benchmark.group = curve.group
    model.write(script)  # checks the results; what a first run sets up
    runs: list[Run] = []
    benchmark.pedantic(lambda: runs.append(model.write(script)), rounds=scaling.rounds)
    seconds = median(run.seconds for run in runs)
    point = {
        "weights_in_billions": n_weights("tiny-32k" if shape == "embedded" else shape) / 1e9,
        "rewards_per_s": asked.n / seconds,
        "tokens_per_s": asked.n * (asked.n_prompt + asked.n_out) / seconds,
    }
    curve.note(benchmark, [point])
    benchmark.extra_info.update(
        shape=shape,
        dtype=model.dtype,
        n_rows=asked.n,
        prompt_tokens=asked.n_prompt,
        shared_tokens=asked.n_shared,
        output_tokens=asked.n_out,
    )
