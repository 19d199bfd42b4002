"""Rewards a second against the share of drafted tokens that are right, relative to no drafts.

Outputs are prescribed, see bench.scripted, and checked in every run. Each run stands between two
without drafts; a curve's figures are in `extra_info`; `python -m bench.draft_curve` draws
them from pytest-benchmark's JSON. What pytest prints is the time of one more run without drafts.
Qwen3-0.6B on the CPU takes some minutes a curve; `-k embedded` leaves it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import pytest
import torch

from bench.draft_curve import break_even
from bench.models import EMBEDDED, save_random_model
from bench.scripted import Run, Script, ScriptedModel, random_script
from bench.sizes import QWEN3

ACCEPTANCES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
LENGTHS = (4, 16, None)  # of a draft; None: as the engine thinks best

Round = dict[float, tuple[Run, float]]


@dataclass(frozen=True)
class Setting:
    """A model's shape, where it runs, how many sequences at a time, and what they write."""

    shape: str
    device: str
    batch: int
    n: int
    n_prompt: int
    n_shared: int
    n_out: int
    rounds: int

    def __str__(self) -> str:
        return f"{self.shape}-{self.device}-{self.batch}"


def _settings() -> Iterator[Any]:
    for batch in (1, 8, 32):
        yield Setting("embedded", "cpu", batch, max(8, batch), 240, 60, 32, rounds=3)
    for batch, n in ((1, 2), (8, 8)):
        yield Setting("qwen3-0.6b", "cpu", batch, n, 240, 60, 32, rounds=1)
    for shape in QWEN3:
        for batch in (1, 32):
            setting = Setting(shape, "cuda", batch, max(2, batch), 650, 160, 64, rounds=1)
            yield pytest.param(setting, marks=pytest.mark.gpu)


@pytest.fixture(scope="module", params=_settings(), ids=str)
def setting(request: pytest.FixtureRequest) -> Setting:
    found: Setting = request.param
    return found


@pytest.fixture(scope="module")
def model(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedModel]:
    folder = EMBEDDED
    if setting.shape != "embedded":
        folder = tmp_path_factory.mktemp(setting.shape)
        save_random_model(folder, setting.shape, setting.device)
    loaded = ScriptedModel(folder, device=setting.device, max_seqs=setting.batch)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def scripts(setting: Setting, model: ScriptedModel) -> list[Script]:
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


@pytest.mark.parametrize("length", LENGTHS, ids=lambda n: "adaptive" if n is None else f"draft{n}")
def bench_curve(
    benchmark: Any,
    setting: Setting,
    model: ScriptedModel,
    scripts: list[Script],
    length: int | None,
) -> None:
    model.write(scripts[0])  # what a first run sets up
    if length is None:
        measure(model, scripts[0], length)  # what the engine learns
    rounds = [measure(model, script, length) for script in scripts[1:]]
    points = [point(setting.n, acceptance, rounds) for acceptance in ACCEPTANCES]
    benchmark.pedantic(model.write, args=(scripts[0],), rounds=1)
    benchmark.group = str(setting)
    cuda = setting.device == "cuda"
    benchmark.extra_info.update(
        device=torch.cuda.get_device_name() if cuda else torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        shape=setting.shape,
        batch=setting.batch,
        prompt_tokens=setting.n_prompt,
        output_tokens=setting.n_out,
        draft_length=length,
        curve=points,
        break_even=break_even([(p["acceptance"], p["speed"]) for p in points]),
    )


def measure(model: ScriptedModel, script: Script, length: int | None) -> Round:
    """For each acceptance a run, and the mean seconds of those without drafts on either side."""
    before = model.write(script).seconds
    found: Round = {}
    for acceptance in ACCEPTANCES:
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
