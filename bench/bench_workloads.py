"""Workloads beyond whole batches of the embedded model: long responses, and large shapes.

Models have random weights and write what is prescribed, see bench.scripted, at lengths that real
outputs have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bench.models import random_model
from bench.scripted import Run, Script, ScriptedModel, text_script
from bench.sizes import Sizes
from bench.workloads import Groups, columns, take

LONG = [("tiny-32k", "cpu"), pytest.param("qwen3-0.6b", "cuda", marks=pytest.mark.gpu)]
LONG_MEMORY = {"cpu": 5e8, "cuda": 2e10}  # bytes: all rows fit at once
CHUNK, N_CHECKED, N_WORDS = 1024, 8, 4096  # tokens; of a prompt, of an output, that there are


@pytest.mark.parametrize(("shape", "device"), LONG)
def bench_long(
    benchmark: Any, sizes: Sizes, source: Groups | None, shape: str, device: str
) -> None:
    """4k to 16k tokens a response."""
    options = {"device": device, "memory": LONG_MEMORY[device]}
    texts = columns(take(sizes.workloads["long"], source))[1]
    benchmark.group = f"long, {shape}"
    check_chunks(random_model(shape, device), texts[0], options)
    model = ScriptedModel(random_model(shape, device), **options)
    script = text_script(texts, vocab=model.vocab_size)
    run = benchmark.pedantic(model.write, args=(script,), rounds=sizes.rounds)
    model.close()
    note(benchmark, script, run, shape=shape, dtype=model.dtype)


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
    few, asked = Script(script.prompts[:1], script.outputs[:1]), {"acceptance": acceptance}
    cpu_model.write(few, **asked)  # what it learns of drafts, too
    benchmark.group = "rl-step in part, qwen3-0.6b"
    run = benchmark.pedantic(cpu_model.write, args=(script,), kwargs=asked, rounds=1)
    note(benchmark, script, run, shape="qwen3-0.6b", dtype=cpu_model.dtype, **asked)


def note(benchmark: Any, script: Script, run: Run, **facts: Any) -> None:
    """Write the figures of a script down, of which `run` is the last one's."""
    seconds, n = benchmark.stats.stats.median, len(script.prompts)
    n_output = sum(map(len, script.outputs))
    n_tokens = n_output + sum(map(len, script.prompts))
    rates = {"rewards_per_s": n / seconds, "tokens_per_s": n_tokens / seconds}
    rates |= {"output_tokens_per_s": n_output / seconds, "passes_a_reward": run.passes}
    benchmark.extra_info.update(n_rows=n, **rates, **facts)
