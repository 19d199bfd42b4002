"""Rewards a second of the native engine and of transformers' `generate`, on the same requests.

Results are compared before anything is timed. The larger shape takes minutes a round; `-k embedded`
leaves it out.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers

from bench.models import EMBEDDED, random_requests, save_random_model
from flipfast.backends import InversionRequest, Inverter, SamplingParams, load_inverter
from flipfast.prompts.rendering import PromptRenderer
from flipfast.prompts.templates import get_template

BACKENDS = ("native", "transformers")


class Workload(NamedTuple):
    """A model's folder, what it is asked, how often a run is timed."""

    folder: str
    requests: list[InversionRequest]
    sampling: SamplingParams
    rounds: int


@pytest.fixture(scope="module")
def embedded(shared_file: Callable[[str], Path]) -> Workload:
    """Real groups for the embedded inverter."""
    folder = str(EMBEDDED)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    renderer = PromptRenderer(
        tokenizer,
        get_template("direct", "instruction"),
        thinking=False,
        max_prompt_tokens=1024 - 128,
    )
    with gzip.open(shared_file("data/workload_groups.jsonl.gz"), "rt") as lines:
        groups = [json.loads(line) for _, line in zip(range(16), lines, strict=False)]
    responses = [response for group in groups for response in group["responses"][:8]]
    requests = [InversionRequest(renderer.render(response).token_ids) for response in responses]
    return Workload(folder, requests, SamplingParams(max_new_tokens=128), rounds=3)


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    """Random weights in the shape of Qwen3-0.6B: 650 tokens in, 160 of them shared, 32 out."""
    folder = save_random_model(tmp_path_factory.mktemp("qwen3"), "qwen3-0.6b")
    requests = random_requests(8, n_prompt=650, n_shared=160, vocab=150_000)
    return Workload(str(folder), requests, SamplingParams(max_new_tokens=32), rounds=1)


@pytest.fixture(scope="module", params=["embedded", "qwen3"])
def workload(request: pytest.FixtureRequest) -> Workload:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def inverters(workload: Workload) -> dict[str, Inverter]:
    """Both backends, after they have given the same outputs."""
    loaded = {name: load_inverter(name, workload.folder, dtype="float32") for name in BACKENDS}
    few, short = workload.requests[:2], SamplingParams(max_new_tokens=8)
    outputs = {name: inverter.generate(few, short) for name, inverter in loaded.items()}
    assert outputs["native"] == outputs["transformers"]
    return loaded


@pytest.mark.parametrize("backend", BACKENDS)
def bench_rewards(
    benchmark: Any, workload: Workload, inverters: dict[str, Inverter], backend: str
) -> None:
    requests, inverter = workload.requests, inverters[backend]

    def run() -> Any:
        if backend == "native":
            inverter.forget_prefixes()  # a first call, every time
        return inverter.generate(requests, workload.sampling)

    outputs = benchmark.pedantic(run, rounds=workload.rounds)
    seconds = benchmark.stats.stats.median
    benchmark.extra_info.update(
        rewards_per_s=len(requests) / seconds,
        prompt_tokens=sum(len(request.prompt_ids) for request in requests),
        output_tokens=sum(len(output.output_ids) for output in outputs),
        device=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
    )
