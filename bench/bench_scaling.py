"""Rewards/s and memory against rows in a call and against the length of responses.

A model of random weights writes prescribed outputs, without drafts, and each run checks them; what
real rows do on the CPU is in bench_scaling_rows. Tokens are those of prompts and outputs. Memory is
that of the pages that are in use at a time; beside it stands `least_mib`: what torch has allocated
on CUDA, on a CPU what the process has, less the pages that were never in use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import psutil
import pytest
import torch

from bench.curves import Curve, Figures, Run
from bench.scripted import Script, ScriptedModel, load_shape, script_of
from bench.sizes import Prescribed, Scaling, Sizes

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
MOST_ROWS = 256  # of one length
MEMORY_OUT = 8  # tokens of output: memory grows with the prompt alike


@pytest.fixture(scope="module", params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def scaling(device: str, sizes: Sizes) -> Scaling:
    return sizes.scaling[device]


@pytest.fixture(scope="module")
def model(device: str, scaling: Scaling) -> Iterator[ScriptedModel]:
    loaded = load_shape(scaling.shape, device, memory=scaling.memory)
    yield loaded
    loaded.close()


@pytest.fixture
def series(device: str, scaling: Scaling) -> str:
    return f"{scaling.shape}, {device}"


@pytest.mark.parametrize("device", [CUDA], indirect=True)
def bench_batch(benchmark: Any, model: ScriptedModel, scaling: Scaling, series: str) -> None:
    """Calls of 1 to thousands of rows, as many calls as it takes to have some rows at least."""
    n_most = max(*scaling.batches, scaling.least_rows)
    script = script_of(replace(scaling.requests, n=n_most), model)

    def prepare(n: int) -> Run:
        return partial(write, model, parts(script, n, max(n, scaling.least_rows)))

    curve = Curve("rows_a_call", "rewards_per_s", series)
    curve.measure(benchmark, scaling.batches, prepare, rounds=scaling.rounds)
    note(benchmark, scaling.requests, prompt_tokens=scaling.requests.n_prompt)


def bench_length(benchmark: Any, model: ScriptedModel, scaling: Scaling, series: str) -> None:
    """Responses of 64 to 16k tokens, more of the short ones, in one call a length."""

    def requests(length: int) -> Prescribed:
        n = min(max(1, scaling.tokens // length), MOST_ROWS)
        return of_length(scaling.requests, length, n)

    scripts = {length: script_of(requests(length), model) for length in scaling.lengths}
    curve = Curve("response_tokens", "rewards_per_s", series)
    curve.measure(
        benchmark,
        scaling.lengths,
        lambda length: partial(write, model, [scripts[length]]),
        rounds=scaling.rounds,
    )
    note(benchmark, scaling.requests)


def bench_memory_of_batch(
    benchmark: Any, model: ScriptedModel, scaling: Scaling, series: str
) -> None:
    asked = replace(scaling.requests, n_out=MEMORY_OUT)
    curve = Curve("rows_a_call", "pages_mib", series)
    curve.measure(
        benchmark,
        scaling.memory_batches,
        lambda n: partial(hold, model, replace(asked, n=n)),
        rounds=1,
    )
    note(benchmark, asked, prompt_tokens=asked.n_prompt)


def bench_memory_of_length(
    benchmark: Any, model: ScriptedModel, scaling: Scaling, series: str
) -> None:
    """A single response."""
    asked = replace(scaling.requests, n_out=MEMORY_OUT)
    curve = Curve("response_tokens", "pages_mib", series)
    curve.measure(
        benchmark,
        scaling.lengths,
        lambda length: partial(hold, model, of_length(asked, length, 1)),
        rounds=1,
    )
    note(benchmark, asked)


def of_length(requests: Prescribed, length: int, n: int) -> Prescribed:
    """n of such requests, with a response of a length in tokens behind what they share."""
    return replace(requests, n=n, n_prompt=requests.n_shared + length)


def parts(script: Script, n: int, n_all: int) -> list[Script]:
    """The first n_all rows of a script, n in each part."""
    return [
        Script(script.prompts[at : min(at + n, n_all)], script.outputs[at : min(at + n, n_all)])
        for at in range(0, n_all, n)
    ]


def write(model: ScriptedModel, calls: Sequence[Script]) -> Figures:
    """Have scripts written one after the other; what they share is computed in the first alone."""
    seconds = sum(model.write(call, keep_prefixes=i > 0).seconds for i, call in enumerate(calls))
    rows = [row for call in calls for row in zip(call.prompts, call.outputs, strict=True)]
    n_tokens = sum(len(prompt) + len(output) for prompt, output in rows)
    return {"rewards_per_s": len(rows) / seconds, "tokens_per_s": n_tokens / seconds}


def hold(model: ScriptedModel, requests: Prescribed) -> Figures:
    """The memory that requests need, in pages and in all.

    Raises:
        AssertionError: sequences held more pages than their tokens fill.
    """
    script = script_of(requests, model)
    on_cuda = model.device == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    n_pages = model.write(script).peak_pages
    most = most_pages(requests, model)
    assert 0 < n_pages <= most, f"{n_pages} pages were held where {most} are enough"
    held = torch.cuda.max_memory_allocated() if on_cuda else psutil.Process().memory_info().rss
    unused = (model.n_pages - n_pages) * model.page_bytes
    return {
        "pages": n_pages,
        "pages_mib": n_pages * model.page_bytes / 2**20,
        "least_mib": (held - unused) / 2**20,
    }


def most_pages(requests: Prescribed, model: ScriptedModel) -> int:
    """Pages that requests fill which run at the same time, the full ones of their start once."""
    shared = requests.n_shared // model.page_size
    own = -(-(requests.n_prompt + requests.n_out) // model.page_size) - shared
    return shared + min(requests.n, model.max_seqs) * own


def note(benchmark: Any, requests: Prescribed, **facts: int) -> None:
    """Write down what all points of a curve have in common."""
    common = {"shared_tokens": requests.n_shared, "output_tokens": requests.n_out}
    benchmark.extra_info.update(**common, **facts)
