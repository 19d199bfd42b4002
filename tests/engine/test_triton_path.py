"""The engine on the Triton kernels: on CUDA as it runs there, else in Triton's interpreter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported

pytest.importorskip("triton")

from flipfast.engine import loading
from flipfast.ops.torch_ops import TorchOps
from flipfast.sampling import SamplingParams
from flipfast_kernels.gemm import linear
from flipfast_kernels.norm import rms_norm
from tests.engine.models import SMALL, load, prompts, run, save_random_model
from tests.engine.test_cuda_graphs import recorded
from tests.kernels.conftest import _one_chain_of_products  # noqa: F401  (a fixture)

HERE = "cuda" if torch.cuda.is_available() else "cpu"
PARAMS = SamplingParams(max_new_tokens=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = {**SMALL, "vocab_size": 96, "num_hidden_layers": 1, "hidden_size": 32}
    return save_random_model(tmp_path_factory.mktemp("m"), "Qwen3Config", **shape)


@pytest.fixture
def on_triton(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    def ops(device: torch.device, options: Any) -> TorchOps:
        return TorchOps(device, torch.float32, linear, rms_norm)

    monkeypatch.setattr(loading, "_ops", ops)
    return {"device": HERE, "attention": "triton_paged", "max_seqs": 8}


def test_tokens_are_those_of_plain_torch(folder: Path, on_triton: dict[str, Any]) -> None:
    ids = prompts([1, 33], 96, stem=16)
    results = run(load(folder, **on_triton, max_tokens=24), ids, PARAMS)
    loading._ops = lambda device, options: TorchOps(
        device, torch.float32
    )  # put back by the fixture
    plain = load(folder, device=HERE, attention="reference", deterministic=False)
    assert [r[0] for r in results] == [r[0] for r in run(plain, ids, PARAMS)]


def test_bits_do_not_depend_on_the_company(folder: Path, on_triton: dict[str, Any]) -> None:
    ids = prompts([2, 33, 20], 96, stem=16)
    alone = [run(load(folder, **on_triton, prefix_cache=False), [i], PARAMS)[0] for i in ids]
    together = load(folder, **on_triton, max_tokens=24)
    assert run(together, ids, PARAMS) == alone
    assert together.engine.counters.prefix_tokens > 0
    replayed = load(folder, **on_triton)
    if HERE == "cpu":
        recorded(replayed)
    assert run(replayed, ids[::-1], PARAMS) == alone[::-1]
