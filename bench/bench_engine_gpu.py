"""Rewards a second on a CUDA device at Qwen 3's shapes, against transformers' continuous batching.

256 requests at once, 650 tokens in of which 160 are shared, 100 out, random bfloat16 weights. The
floor that `extra_info` holds counts, for an H200: weights read once a decode step, keys and values
read once a token, and the products of the prefill at the datasheet's dense rate.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bench.models import random_requests, save_random_model
from bench.sizes import QWEN3, SHAPES
from flipfast.backends import Inverter, SamplingParams, load_inverter

pytestmark = pytest.mark.gpu

N, N_PROMPT, N_SHARED, N_OUT = 256, 650, 160, 100
SAMPLING = SamplingParams(max_new_tokens=N_OUT)
REQUESTS = random_requests(N, n_prompt=N_PROMPT, n_shared=N_SHARED, vocab=150_000)
BYTES_A_S, FLOPS_A_S = 4.8e12, 989e12  # H200 datasheet: memory, dense bfloat16


@pytest.fixture(scope="module", params=QWEN3)
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(shape: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp(shape), shape, "cuda")


@pytest.fixture
def memory() -> Iterator[None]:
    yield
    gc.collect()
    torch.cuda.empty_cache()


def floor_seconds(shape: str) -> float:
    """The least time for all requests at once, by memory in decode and arithmetic in prefill."""
    c = SHAPES[shape].config
    attention = (2 * c["num_attention_heads"] + 2 * c["num_key_value_heads"]) * c["head_dim"]
    layer = c["hidden_size"] * (attention + 3 * c["intermediate_size"])
    weights = layer * c["num_hidden_layers"] + c["hidden_size"] * c["vocab_size"]
    kv = 4 * c["num_hidden_layers"] * c["num_key_value_heads"] * c["head_dim"]  # bytes a token
    prefill = 2 * layer * c["num_hidden_layers"] * (N * (N_PROMPT - N_SHARED) + N_SHARED)
    decode = N_OUT * (2 * weights + kv * N * (N_PROMPT + N_OUT / 2))
    return prefill / FLOPS_A_S + decode / BYTES_A_S


def note(benchmark: Any, shape: str, n_output: int) -> None:
    seconds = benchmark.stats.stats.min
    benchmark.extra_info.update(
        device=torch.cuda.get_device_name(),
        torch=torch.__version__,
        rewards_per_s=N / seconds,
        output_tokens_per_s=n_output / seconds,
        floor_rewards_per_s=N / floor_seconds(shape),
        share_of_floor=floor_seconds(shape) / seconds,
    )


@pytest.mark.parametrize("deterministic", [True, False], ids=["deterministic", "fast"])
def bench_native(
    benchmark: Any, folder: Path, shape: str, deterministic: bool, memory: None
) -> None:
    inverter = load_inverter("native", str(folder), native={"deterministic": deterministic})
    outputs = _check(inverter) if deterministic else inverter.generate(REQUESTS, SAMPLING)

    def run() -> None:
        inverter.forget_prefixes()  # type: ignore[attr-defined]
        inverter.generate(REQUESTS, SAMPLING)

    benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    note(benchmark, shape, sum(len(output.output_ids) for output in outputs))
    inverter.close()


def bench_transformers_continuous_batching(
    benchmark: Any, folder: Path, shape: str, memory: None
) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, device_map="cuda"
    )
    config = transformers.GenerationConfig(
        max_new_tokens=N_OUT, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    inputs = [list(request.prompt_ids) for request in REQUESTS]

    def run() -> Any:
        return model.generate_batch(inputs, generation_config=config, progress_bar=False)

    outputs = benchmark.pedantic(run, rounds=1, warmup_rounds=1)
    n_output = sum(len(output.generated_tokens) for output in outputs.values())
    assert n_output == N * N_OUT
    note(benchmark, shape, n_output)


def _check(inverter: Inverter) -> Any:
    """Outputs of all requests at once, after a few of them have given the same alone."""
    together = inverter.generate(REQUESTS, SAMPLING)
    for i in (0, 100, N - 1):
        assert inverter.generate([REQUESTS[i]], SAMPLING)[0] == together[i]
    return together
