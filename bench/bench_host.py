"""Milliseconds of the host for a step of 256 sequences, as on a CUDA device; no device is needed.

The engine's own code plans a step, lays it out, packs it for a recorded step and takes in what the
step before has sampled. Only the decoder computes nothing: a token is the position of its row, so
that outputs show whether rows were laid out and handed out as planned. What a driver does on the
host (copies, a graph's launch, events) comes on top. Without drafts.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.models import random_requests
from bench.sizes import PEER_LOADS
from flipfast.engine.engine import Engine
from flipfast.engine.model_runner import ModelRunner, StepResult
from flipfast.engine.prefix_cache import PrefixCache
from flipfast.engine.sampling import SamplingParams
from flipfast.engine.scheduler import Scheduler
from flipfast.engine.sequence import Sequence
from flipfast.engine.step_plan import StepPlan

LOAD = PEER_LOADS["cuda"]
SEQS, GROUP, TOKENS, PAGE = LOAD.n, 8, 8192, 16
N_PAGES = SEQS * (1 + (LOAD.n_prompt + LOAD.n_out) // PAGE)  # full, so that prefixes are evicted
STEPS, ROUNDS = 64, 10
# An output of so many tokens holds its place for SEQS / GROUP steps: its last one is on its way to
# the host while the next step is planned.
N_OUT = {"decode": LOAD.n_out, "mixed": SEQS // GROUP - 1}
# Sequences with rows in each step, and of these the ones whose prompt it runs.
EXPECTED = {"decode": (SEQS, 0), "mixed": (SEQS - GROUP, GROUP)}

Prompts = list[list[int]]


class Host:
    """An engine whose decoder computes nothing.

    Attributes:
        steps: of each step, how many sequences it has, and of how many it runs the prompt.
    """

    def __init__(self, n_out: int) -> None:
        self.steps: list[tuple[int, int]] = []
        self._sequences: list[Sequence] = []
        self._n_out = n_out
        decoder: Any = SimpleNamespace(
            spec=SimpleNamespace(layers=(), vocab_size=LOAD.n_prompt, max_positions=2048),
            max_tokens=TOKENS,
            max_logit_rows=SEQS,
            forward=lambda ids, positions, caches, metadata, head_rows: positions[head_rows],
            best=lambda positions: positions,
        )
        ops: Any = SimpleNamespace(device=torch.device("cpu"))
        pages: Any = SimpleNamespace(page_size=PAGE)
        keep: Any = SimpleNamespace(writes_rows=True, feed=_nothing, keep=_nothing)
        sizes = {"n_pages": N_PAGES, "max_seqs": SEQS}
        self._runner: Any = ModelRunner(
            decoder, ops, pages, keep=keep, recorder=lambda: lambda call: call, **sizes
        )
        cache = PrefixCache(N_PAGES, PAGE, copies_pins=False)
        scheduler = Scheduler(cache, max_seqs=SEQS, max_tokens=TOKENS, groups=True)
        self._engine = Engine(self, scheduler, end_ids=frozenset(), overlap=True)  # type: ignore[arg-type]
        self.wait_for_caller = self._runner.wait_for_caller

    def run(self, plan: StepPlan) -> StepResult:
        """As the engine's runner."""
        self.steps.append((len(plan.chunks), len(plan.prefilling)))
        result: StepResult = self._runner.run(plan)
        return result

    def start(self, prompts: Prompts) -> None:
        """Queue requests, each with a row for its tokens, as those of a reward have."""
        rows = torch.zeros(len(prompts), self._n_out, dtype=torch.int32)
        params = SamplingParams(self._n_out)
        new = [
            Sequence(ids, params, output_row=row) for ids, row in zip(prompts, rows, strict=True)
        ]
        self._engine.start(new)
        self._sequences += new

    def step(self, n: int = 1) -> None:
        """Run steps."""
        for _ in range(n):
            self._engine.step()

    def check(self, kind: str) -> None:
        """That the last steps were of a kind, and all tokens so far are right."""
        assert self.steps[-STEPS:] == [EXPECTED[kind]] * STEPS
        assert self._engine.counters.failed_steps == 0
        for sequence in self._sequences:
            on_its_way = sequence.slot >= 0  # the token of the step in flight
            first, n = sequence.n_prompt - 1, sequence.n_sampled - on_its_way
            assert sequence.output_ids == list(range(first, first + n))


def _nothing(*_: Any) -> None:
    """In place of a kernel."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Copies stand for those to a device, which no threads of the host share."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(usual)


@cache
def prompts() -> Prompts:
    """Of all sequences that run at first, and of those that join in as many steps as are timed."""
    sizes = {"n_prompt": LOAD.n_prompt, "n_shared": LOAD.n_shared, "vocab": LOAD.n_prompt}
    return [list(x.prompt_ids) for x in random_requests(SEQS + GROUP * STEPS, **sizes)]


def prepared(kind: str) -> Host:
    """An engine without a free place, with a queue. Only in "mixed" will sequences end."""
    host = Host(N_OUT[kind])
    if kind == "decode":
        host.start(prompts())
        while host.steps[-1:] != [EXPECTED[kind]]:
            host.step()
    else:
        for at in range(0, SEQS, GROUP):
            host.start(prompts()[at : at + GROUP])
            host.step()
        host.start(prompts()[SEQS:])
    return host


@pytest.mark.parametrize("kind", ["decode", "mixed"])
def bench_step(benchmark: Any, kind: str) -> None:
    """Steps that only decode, and those in which eight end and eight others join."""
    host = prepared(kind)
    host.step(STEPS)
    host.check(kind)
    benchmark.group = f"host, {STEPS} steps of {SEQS} sequences"
    benchmark.pedantic(
        lambda host: host.step(STEPS),
        setup=lambda: ((prepared(kind),), {}),
        rounds=ROUNDS,
    )
    fastest, usual = benchmark.stats.stats.min, benchmark.stats.stats.median
    benchmark.extra_info.update(
        host_ms=round(1e3 * fastest / STEPS, 3),
        median_host_ms=round(1e3 * usual / STEPS, 3),
    )
