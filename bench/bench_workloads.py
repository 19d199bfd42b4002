"""Workloads beside whole batches of the embedded model: a stream of rows, long ones, large shapes.

A stream's rows arrive at random times at a given rate, and their latency counts from when they were
due. Rates are shares of what a batch reaches here, and one that is given (`--rate`). Each rate has
groups of its own, as a row that comes again would find its prompt computed.

Long and large models have random weights and write what is prescribed, see bench.scripted, at
lengths that real outputs have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from statistics import median
from typing import Any, NamedTuple

import pytest

from bench.bench_serving import server
from bench.models import random_model
from bench.open_loop import arrival_times, send
from bench.scripted import Run, Script, ScriptedModel, text_script
from bench.sizes import FULL, Sizes
from bench.workloads import Groups, columns, take
from flipfast import FlipReward
from flipfast.client import AsyncFlipClient
from flipfast.serving.async_engine import AsyncFlipEngine

GIVEN = "given"
N_WARM_UP = 4  # groups
LONG = [("tiny-32k", "cpu"), pytest.param("qwen3-0.6b", "cuda", marks=pytest.mark.gpu)]
LONG_MEMORY = {"cpu": 5e8, "cuda": 2e10}  # bytes: all rows fit at once
CHUNK, N_CHECKED, N_WORDS = 1024, 8, 4096  # tokens; of a prompt, of an output, that there are

Texts = tuple[list[str], list[str]]
ScoreRow = Callable[..., Awaitable[Any]]


class Batch(NamedTuple):
    """Rows with the rewards that a batch of them has, and its rewards/s."""

    texts: Texts
    rewards: list[float | None]
    rewards_per_s: float


class Stream(NamedTuple):
    """The rows of each load, some to warm up with, and the rows/s that are given, if any."""

    loads: dict[float | str, Batch]
    warm_up: Texts
    given: float | None

    @property
    def capacity(self) -> float:
        """Rewards/s of batches."""
        return median(batch.rewards_per_s for batch in self.loads.values())


@pytest.fixture(scope="module")
def stream(sizes: Sizes, source: Groups | None, pytestconfig: pytest.Config) -> Stream:
    workload, n = sizes.workloads["stream"], sizes.workloads["stream"].n_groups
    only = pytestconfig.getoption("--rate")
    given = only or workload.rows_per_s
    loads: list[float | str] = [GIVEN] if given else []
    loads += [] if only else sizes.stream_shares
    groups = take(workload, source, n_more=n * (len(loads) - 1) + N_WARM_UP)
    warm_up = columns(groups[n * len(loads) :])
    with FlipReward(device="cpu") as reward:
        reward.score(*warm_up)
        parts = (columns(groups[i * n : (i + 1) * n]) for i in range(len(loads)))
        batches = [(texts, reward.score(*texts)) for texts in parts]
    found = [Batch(texts, batch.rewards, batch.stats.rewards_per_s) for texts, batch in batches]
    return Stream(dict(zip(loads, found, strict=True)), warm_up, given)


@pytest.fixture(scope="module", params=["engine", "server"])
def score_row(request: pytest.FixtureRequest, stream: Stream) -> Iterator[ScoreRow]:
    """From asyncio code in this process, or by HTTP; either way the engine is warm."""
    if request.param == "engine":
        engine = AsyncFlipEngine(device="cpu")
        asyncio.run(engine.score(*stream.warm_up))
        yield engine.score_row
        engine.shut_down()
        return
    with server("--device", "cpu") as (url, _):
        client = AsyncFlipClient(url)
        asyncio.run(client.score(*stream.warm_up))
        yield client.score_row


@pytest.mark.parametrize("load", [GIVEN, *FULL.stream_shares])
def bench_stream(benchmark: Any, stream: Stream, score_row: ScoreRow, load: float | str) -> None:
    if load not in stream.loads:
        pytest.skip("not at this size, or not with --rate")
    rate = float(stream.given or 0) if isinstance(load, str) else load * stream.capacity
    batch = stream.loads[load]
    rows = list(zip(*batch.texts, strict=True))
    due = arrival_times(len(rows), rate)

    def run() -> Any:
        return asyncio.run(send(score_row, rows, due, batch.rewards))

    benchmark.group = f"stream, {load}"
    served = benchmark.pedantic(run, rounds=1)
    benchmark.extra_info.update(
        n_rows=len(rows),
        rate=round(rate, 3),
        batch_rewards_per_s=round(stream.capacity, 3),
        share_of_capacity=round(rate / stream.capacity, 3),
        achieved_rows_per_s=round(served.rows_per_s, 3),
        **{f"p{share}_ms": round(served.ms(share / 100), 2) for share in (50, 90, 99)},
    )


@pytest.mark.parametrize(("shape", "device"), LONG)
def bench_long(
    benchmark: Any, sizes: Sizes, source: Groups | None, shape: str, device: str
) -> None:
    options = {"device": device, "memory": LONG_MEMORY[device]}
    texts = columns(take(sizes.workloads["long"], source))[1]
    benchmark.group = f"long, {shape}"
    check_chunks(random_model(shape, device), texts[0], options)
    model = ScriptedModel(random_model(shape, device), **options)
    script = text_script(texts, vocab=model.vocab_size)
    run = benchmark.pedantic(model.write, args=(script,), rounds=sizes.rounds)
    prefill = model.write(replace(script, outputs=[output[:1] for output in script.outputs]))
    model.close()
    note(benchmark, script, run)
    benchmark.extra_info.update(
        shape=shape,
        dtype=model.dtype,
        prefill_tokens_per_s=prefill.computed / prefill.seconds,
        seconds_a_reward=benchmark.stats.stats.median / len(texts),
        peak_pages=run.peak_pages,
    )


def check_chunks(model: Any, text: str, options: dict[str, Any]) -> None:
    """Assert that a prompt in chunks has the log-probabilities that it has in one piece."""
    script = text_script([text], vocab=N_WORDS, n_out=N_CHECKED)
    prompt, targets = script.prompts[0], script.outputs[0]
    found = []
    for max_tokens in (CHUNK, len(prompt) + len(targets)):
        loaded = ScriptedModel(model, max_tokens=max_tokens, max_seqs=1, **options)
        found.append(loaded.log_probs(prompt, targets))
        loaded.close()
    assert found[0] == found[1]


@pytest.fixture(scope="module", params=FULL.gpu_shapes)
def cuda_model(request: pytest.FixtureRequest, sizes: Sizes) -> Iterator[tuple[str, ScriptedModel]]:
    if request.param not in sizes.gpu_shapes:
        pytest.skip("not at this size")
    model = ScriptedModel(random_model(request.param, "cuda"), device="cuda")
    yield request.param, model
    model.close()


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["rl-step", "best-of-n"])
def bench_large_on_cuda(
    benchmark: Any,
    cuda_model: tuple[str, ScriptedModel],
    sizes: Sizes,
    source: Groups | None,
    name: str,
) -> None:
    shape, model = cuda_model
    texts = columns(take(sizes.workloads[name], source))[1]
    script = text_script(texts, vocab=model.vocab_size)
    n = -(-len(texts) // 4)
    model.write(Script(script.prompts[:n], script.outputs[:n]))
    benchmark.group = f"{name}, {shape}"
    run = benchmark.pedantic(model.write, args=(script,), rounds=1)
    note(benchmark, script, run)
    benchmark.extra_info.update(shape=shape, dtype=model.dtype, acceptance=None)


@pytest.fixture(scope="module")
def cpu_model(quick: bool) -> Iterator[ScriptedModel]:
    if quick:
        pytest.skip("takes minutes")
    model = ScriptedModel(random_model("qwen3-0.6b"), device="cpu", memory=2e9)
    yield model
    model.close()


@pytest.mark.parametrize("acceptance", [None, 0.8], ids=["plain", "drafts"])
def bench_large_on_cpu(
    benchmark: Any,
    cpu_model: ScriptedModel,
    sizes: Sizes,
    source: Groups | None,
    acceptance: float | None,
) -> None:
    """Each drafted token right with the given probability."""
    texts = columns(take(sizes.large_on_cpu, source))[1]
    script = text_script(texts, vocab=cpu_model.vocab_size)
    few = Script(script.prompts[:1], script.outputs[:1])
    cpu_model.write(few, acceptance=acceptance)  # what it learns of drafts, too
    benchmark.group = "rl-step in part, qwen3-0.6b"
    run = benchmark.pedantic(
        cpu_model.write, args=(script,), kwargs={"acceptance": acceptance}, rounds=1
    )
    note(benchmark, script, run)
    info = {"shape": "qwen3-0.6b", "dtype": cpu_model.dtype, "acceptance": acceptance}
    benchmark.extra_info.update(info)


def note(benchmark: Any, script: Script, run: Run) -> None:
    """Write the figures of a script down, of which `run` is the last one's."""
    seconds, n = benchmark.stats.stats.median, len(script.prompts)
    n_prompt, n_output = (sum(map(len, part)) for part in (script.prompts, script.outputs))
    benchmark.extra_info.update(
        n_rows=n,
        rewards_per_s=n / seconds,
        tokens_per_s=(n_prompt + n_output) / seconds,
        output_tokens_per_s=n_output / seconds,
        prompt_tokens=n_prompt,
        output_tokens=n_output,
        computed_tokens=run.computed,
        passes_a_reward=run.passes,
    )
