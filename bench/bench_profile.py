"""Where the time of a run goes: the stages of the three workloads, on the CPU and on CUDA.

A run is scored twice, with its stages timed and plainly, to the same rewards. What pytest prints is
the plain run; `extra_info` has the stages of the other, and what the device can do, measured right
before it. Shares are of the timed run; on CUDA its graphs rest, and host and device work side
by side, so that shares add up to more than one.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.models import save_random_model
from bench.shapes import SHAPES, products
from bench.sizes import Sizes
from bench.workloads import Groups, columns, take
from flipfast import FlipReward
from flipfast.profiling.runs import Profile, profile_run

N_WARM_UP = 1  # groups
N_RANDOM = 32  # tokens that a model of random weights writes
PARTS = ("qkv", "output", "gate and up", "down", "head")  # as bench.shapes.products, and one more


@dataclass(frozen=True)
class Setting:
    """A workload, its model, and where it runs.

    Attributes:
        workload: of bench.sizes.
        model: "embedded", or a shape of bench.sizes, with random weights.
        device: `cpu` or `cuda`.
    """

    workload: str
    model: str
    device: str

    def __str__(self) -> str:
        return f"{self.workload}-{self.model}-{self.device}"


SETTINGS = [
    Setting("rl-step", "embedded", "cpu"),
    Setting("best-of-n", "embedded", "cpu"),
    Setting("long", "tiny-32k", "cpu"),
    *(
        pytest.param(Setting(name, "qwen3-0.6b", "cuda"), marks=pytest.mark.gpu)
        for name in ("rl-step", "best-of-n", "long")
    ),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of models, filled as they are needed."""
    home = tmp_path_factory.mktemp("models")
    return {name: home / name for name in SHAPES}


@pytest.fixture(params=SETTINGS, ids=str)
def setting(request: pytest.FixtureRequest) -> Setting:
    found: Setting = request.param
    return found


@pytest.fixture
def reward(setting: Setting, models: dict[str, Path]) -> Iterator[FlipReward]:
    options: dict[str, Any] = {"style": "direct", "device": setting.device}
    if setting.model != "embedded":
        folder = models[setting.model]
        if not folder.exists():
            save_random_model(folder, setting.model, setting.device)
        options.update(model=str(folder), max_new_tokens=N_RANDOM)
    with FlipReward(**options) as loaded:
        yield loaded
    if setting.device == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def bench_stages(
    benchmark: Any, setting: Setting, reward: FlipReward, sizes: Sizes, source: Groups | None
) -> None:
    groups = take(sizes.workloads[setting.workload], source, n_more=N_WARM_UP)
    reward.score(*columns(groups[-N_WARM_UP:]))
    texts = columns(groups[:-N_WARM_UP])
    profile, found = profiled(reward, texts)

    def forget() -> None:
        reward.inverter.forget_prefixes()  # type: ignore[attr-defined]

    benchmark.group = f"stages on {setting.device}"
    expected = benchmark.pedantic(lambda: reward.score(*texts), setup=forget, rounds=1)
    assert found.rewards == expected.rewards
    benchmark.extra_info.update(
        profile=setting.workload,
        model=setting.model,
        kind=setting.device,
        dtype=str(profile.dtype).removeprefix("torch."),
        n_rows=len(found.rewards),
        timed_s=round(profile.seconds, 4),
        copy_gb_per_s=round(1e-9 * profile.rates.bytes_a_s, 2),
        product_gflop_per_s=round(1e-9 * profile.rates.flops_a_s, 1),
        stages=noted(profile, setting.model),
    )


def profiled(reward: FlipReward, texts: tuple[list[str], list[str]]) -> tuple[Profile, Any]:
    """The stages of a run, and its rewards."""
    batches = []
    profile = profile_run(reward, lambda: batches.append(reward.score(*texts)))
    return profile, batches[-1]


def noted(profile: Profile, model: str) -> list[dict[str, Any]]:
    """A run's stages for the report, the largest first; products with the part that they are."""
    shape = "tiny-32k" if model == "embedded" else model
    config = SHAPES[shape].config
    sizes = [*products(shape), (config["vocab_size"], config["hidden_size"])]
    names = [f"product {n_out} x {n_in}" for n_out, n_in in sizes]
    parts = dict(zip(names, PARTS, strict=True))
    return [
        {
            "name": f"{stage.name} ({parts[stage.name]})" if stage.name in parts else stage.name,
            "seconds": stage.seconds,
            "share": profile.share(stage),
            "bytes": stage.n_bytes,
            "flops": stage.flops,
            "floor_share": stage.share_of_floor,
        }
        for stage in profile.largest_first
    ]
