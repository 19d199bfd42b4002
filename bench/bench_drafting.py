"""Rewards a second against the share of drafted tokens that are right, relative to no drafts.

Outputs are prescribed, see bench.scripted, and checked in every run. Each run stands between two
without drafts. `python -m bench.draft_curve` draws the curves from pytest-benchmark's JSON.
Qwen3-0.6B on the CPU takes some minutes a curve; `-k embedded` leaves it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

import pytest

from bench.draft_curve import break_even
from bench.scripted import Run, Script, ScriptedModel, load_shape, script_of
from bench.sizes import FULL, QUICK, DraftCurves

Round = dict[float, tuple[Run, float]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    sizes = QUICK if metafunc.config.getoption("--quick") else FULL
    cases = [
        pytest.param(
            curves,
            length,
            id=f"{curves}-{draft_name(length)}",
            marks=pytest.mark.gpu if curves.device == "cuda" else (),
        )
        for curves in sizes.drafting
        for length in curves.lengths
    ]
    metafunc.parametrize(("curves", "length"), cases, indirect=["curves"], scope="module")


@pytest.fixture(scope="module")
def curves(request: pytest.FixtureRequest) -> DraftCurves:
    found: DraftCurves = request.param
    return found


@pytest.fixture(scope="module")
def model(curves: DraftCurves) -> Iterator[ScriptedModel]:
    loaded = load_shape(curves.shape, curves.device, max_seqs=curves.batch)
    yield loaded
    loaded.close()


def bench_curve(
    benchmark: Any, curves: DraftCurves, model: ScriptedModel, length: int | None
) -> None:
    # One to warm up, and one a round.
    scripts = [script_of(curves.requests, model, seed) for seed in range(1 + curves.rounds)]
    benchmark.group = "speed against acceptance"
    model.write(scripts[0])  # what a first run sets up
    if length is None:
        measure(model, scripts[0], curves.acceptances, length)  # what the engine learns
    rounds = [measure(model, script, curves.acceptances, length) for script in scripts[1:]]
    points = [point(curves.requests.n, acceptance, rounds) for acceptance in curves.acceptances]
    benchmark.pedantic(model.write, args=(scripts[0],), rounds=1)
    benchmark.extra_info.update(
        curve=points,
        x_name="acceptance",
        y_name="speed",
        series=f"{curves}, draft {draft_name(length)}",
        shape=curves.shape,
        dtype=model.dtype,
        batch=curves.batch,
        draft_length=length,
        break_even=break_even([(p["acceptance"], p["speed"]) for p in points]),
    )


def draft_name(length: int | None) -> str:
    """What a draft's length is called."""
    return "adaptive" if length is None else str(length)


def measure(
    model: ScriptedModel, script: Script, acceptances: tuple[float, ...], length: int | None
) -> Round:
    """For each acceptance a run, and the mean seconds of those without drafts on either side."""
    before = model.write(script).seconds
    found: Round = {}
    for acceptance in acceptances:
        run = model.write(script, acceptance=acceptance, length=length)
        behind = model.write(script).seconds
        found[acceptance] = run, (before + behind) / 2
        before = behind
    return found


def point(n: int, acceptance: float, rounds: list[Round]) -> dict[str, float]:
    """Medians of an acceptance's runs; `speed` is relative to the runs without drafts."""
    runs = [found[acceptance] for found in rounds]
    return {
        "acceptance": acceptance,
        "rewards_per_s": n / median(run.seconds for run, _ in runs),
        "speed": median(plain / run.seconds for run, plain in runs),
        "passes_a_reward": runs[0][0].passes,
    }
