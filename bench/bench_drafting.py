"""Rewards a second against the share of drafted tokens that are right, relative to no drafts.

Outputs are prescribed, see bench.scripted, and checked in every run. Each run stands between two
without drafts; a curve's figures are in `extra_info`; `python -m bench.draft_curve` draws
them from pytest-benchmark's JSON. What pytest prints is the time of one more run without drafts.
Qwen3-0.6B on the CPU takes some minutes a curve; `-k embedded` leaves it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

import pytest
import torch

from bench.draft_curve import break_even
from bench.models import EMBEDDED, random_model
from bench.scripted import Run, Script, ScriptedModel, random_script
from bench.sizes import FULL, QUICK, Requests, Sizes

Round = dict[float, tuple[Run, float]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "setting" not in metafunc.fixturenames:
        return
    sizes = QUICK if metafunc.config.getoption("--quick") else FULL
    settings = [
        pytest.param(each, marks=[pytest.mark.gpu] if each.device == "cuda" else [])
        for each in sizes.draft_curves
    ]
    metafunc.parametrize("setting", settings, ids=str, scope="module")
    ids = ["adaptive" if n is None else f"draft{n}" for n in sizes.draft_lengths]
    metafunc.parametrize("length", sizes.draft_lengths, ids=ids)


@pytest.fixture(scope="module")
def model(setting: Requests) -> Iterator[ScriptedModel]:
    found = EMBEDDED if setting.shape == "embedded" else random_model(setting.shape, setting.device)
    loaded = ScriptedModel(found, device=setting.device, max_seqs=setting.batch)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def scripts(setting: Requests, model: ScriptedModel) -> list[Script]:
    """One to warm up, and one a round."""
    return [
        random_script(
            setting.n,
            n_prompt=setting.n_prompt,
            n_shared=setting.n_shared,
            n_out=setting.n_out,
            vocab=model.vocab_size,
            seed=seed,
        )
        for seed in range(1 + setting.rounds)
    ]


def bench_curve(
    benchmark: Any,
    setting: Requests,
    model: ScriptedModel,
    scripts: list[Script],
    sizes: Sizes,
    length: int | None,
) -> None:
    model.write(scripts[0])  # what a first run sets up
    if length is None:
        measure(model, scripts[0], length, sizes.draft_acceptances)  # what the engine learns
    acceptances = sizes.draft_acceptances
    rounds = [measure(model, script, length, acceptances) for script in scripts[1:]]
    points = [point(setting.n, acceptance, rounds) for acceptance in acceptances]
    benchmark.group = str(setting)
    benchmark.pedantic(model.write, args=(scripts[0],), rounds=1)
    cuda = setting.device == "cuda"
    benchmark.extra_info.update(
        device=torch.cuda.get_device_name() if cuda else torch.backends.cpu.get_cpu_capability(),
        shape=setting.shape,
        batch=setting.batch,
        prompt_tokens=setting.n_prompt,
        output_tokens=setting.n_out,
        draft_length=length,
        curve=points,
        break_even=break_even([(p["acceptance"], p["speed"]) for p in points]),
    )


def measure(
    model: ScriptedModel, script: Script, length: int | None, acceptances: tuple[float, ...]
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
        "drafted_a_reward": runs[0][0].drafted / n,
        "accepted_a_reward": runs[0][0].accepted / n,
    }
