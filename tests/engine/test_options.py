"""Options, and the memory that follows from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from flipfast.engine.loading import _device
from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.engine.options import EngineOptions, n_pages
from flipfast.engine.sampling import SamplingParams
from flipfast.errors import ConfigError
from tests.engine.toy_models import SMALL, assert_steady, load, prompts, run, save_random_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("m"), "Qwen3Config", **SMALL)


def tensors_of(*owners: object) -> dict[int, int]:
    """Bytes of every tensor that the objects hold, by address."""
    found: dict[int, int] = {}
    pending = list(owners)
    while pending:
        owner = pending.pop()
        if isinstance(owner, torch.Tensor):
            found[owner.untyped_storage().data_ptr()] = owner.untyped_storage().nbytes()
        elif isinstance(owner, (list, tuple)):
            pending += owner
    return found


@pytest.mark.parametrize("memory", [2**22, 5_000_000, 2**25])
def test_a_budget_in_bytes_holds_all_but_the_weights(folder: Path, memory: int) -> None:
    model = load(folder, memory=memory, max_seqs=8, max_tokens=64)
    runner = model._runner
    assert runner is not None
    held = tensors_of(runner._caches, *vars(runner.decoder._workspace).values())
    used = sum(held.values())
    assert 0.3 * memory < used <= memory or model.engine.counters.pages == 8 * 32
    ids = prompts([100] * 20, SMALL["vocab_size"])
    run(model, ids, SamplingParams(max_new_tokens=4))
    assert model.engine.counters.peak_pages <= model.engine.counters.pages


def test_a_share_is_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flipfast.engine.options._free_bytes", lambda device: 1000)
    cpu = torch.device("cpu")
    assert EngineOptions(memory=0.5).budget(cpu) == 500
    assert EngineOptions(memory=1.0).budget(cpu) == 1000
    assert EngineOptions(memory=777).budget(cpu) == 777
    assert 0 < EngineOptions().budget(cpu) < 1000


def test_pages_for_a_budget() -> None:
    assert n_pages(1000, fixed=100, page=90, wanted=50) == 10
    assert n_pages(1000, fixed=100, page=90, wanted=7) == 7
    with pytest.raises(ConfigError, match="budget of 1000 bytes.*need.*900 bytes.*90 bytes"):
        n_pages(1000, fixed=900, page=90, wanted=50)


def test_a_budget_that_is_too_small_says_so(folder: Path) -> None:
    with pytest.raises(ConfigError, match="memory budget of 1000 bytes is too small"):
        load(folder, memory=1000)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"max_seqs": 0}, "max_seqs must be at least 1, not 0"),
        ({"max_tokens": -1}, "max_tokens must be at least 1, not -1"),
        ({"memory": 0}, "memory must be above 0, not 0"),
        ({"memory": float("nan")}, "memory must be above 0, not nan"),
        ({"dtype": "int4"}, "unknown dtype 'int4'; use one of: float32, bfloat16, float16"),
        ({"dtype": "float16"}, "float16"),
        ({"attention": "magic"}, "no attention backend 'magic'"),
        ({"attention": "reference"}, "not batch-invariant.*deterministic=False"),
        ({"device": "moon"}, "unknown device 'moon'"),
    ],
)
def test_options_that_cannot_be_used(folder: Path, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(folder, **options)


def test_devices_of_other_kinds_are_for_other_backends() -> None:
    with pytest.raises(UnsupportedModelError, match="'cpu' and 'cuda', not on 'mps'"):
        _device("mps")
    assert _device("cpu") == torch.device("cpu")


def test_a_named_attention_backend_is_taken(folder: Path) -> None:
    params = SamplingParams(max_new_tokens=6)
    ids = prompts([10, 50], SMALL["vocab_size"])
    best = run(load(folder, dtype="float32"), ids, params)
    named = run(
        load(folder, dtype="float32", attention="reference", deterministic=False), ids, params
    )
    assert_steady(best, SMALL["vocab_size"])
    assert [tokens for tokens, *_ in best] == [tokens for tokens, *_ in named]
