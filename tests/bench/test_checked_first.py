"""A wrong result stops a benchmark before anything is timed."""

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from bench import (
    bench_fewer_steps,
    bench_host,
    bench_reward,
    bench_serving,
    bench_text_core,
    kernel_cases,
)
from bench.sizes import QUICK, Workload
from flipfast import FlipReward
from flipfast.engine.batch import BatchBuilder

GROUPS = [
    ("Name a river.", ["The Ebro flows to the sea.", "Two and two make four."]),
    ("How do I make banana bread?", ["Mash bananas, add flour.", "The weather will be mild."]),
    ("What is erosion?", ["Water carries soil away.", "A river is long."]),
] * 2
PAIRS = ([text for _, texts in GROUPS for text in texts], [x for x, texts in GROUPS for _ in texts])


class Timed(Exception):
    """The stand-in for the `benchmark` fixture was asked to time something."""


class Untimed:
    """Stands in for the `benchmark` fixture."""

    def __init__(self):
        self.extra_info, self.group = {}, None

    def __call__(self, *args, **kwargs):
        raise Timed

    def pedantic(self, run, *args, **kwargs):
        raise Timed


def check(monkeypatch, plant, run):
    """What is right gets to the timing; what is not stops before."""
    with pytest.raises(Timed):
        run(Untimed())
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        run(Untimed())


def off_by(old, change):
    return lambda *args, **kwargs: change(old(*args, **kwargs))


def break_attribute(owner, name, change):
    return lambda patch: patch.setattr(owner, name, off_by(getattr(owner, name), change))


class Options:
    def getoption(self, name):
        return None


TEXT_CORE = {
    "words": (
        break_attribute(bench_text_core, "word_hashes", lambda found: (found[0] + 1, *found[1:])),
        lambda benchmark: bench_text_core.bench_words(benchmark, PAIRS, "core"),
    ),
    "F1": (
        break_attribute(bench_text_core, "overlap_f1", lambda scores: np.nextafter(scores, 2)),
        lambda benchmark: bench_text_core.bench_f1(benchmark, PAIRS, 1),
    ),
    "F1 against a peer": (
        break_attribute(bench_text_core, "overlap_f1", lambda scores: np.nextafter(scores, 2)),
        lambda benchmark: bench_text_core.bench_f1_peer(benchmark, Options(), PAIRS, "twin"),
    ),
}


SIZES = replace(QUICK, workloads={"rl-step": Workload(2, 2)})


@pytest.mark.parametrize("case", list(TEXT_CORE))
def test_text_core(monkeypatch, case):
    check(monkeypatch, *TEXT_CORE[case])


CPU = torch.device("cpu")
KERNELS = {
    "linear": lambda: kernel_cases.product(64, 32, 3, CPU, torch.float32),
    "lm_head": lambda: kernel_cases.head(256, 64, 3, CPU, torch.float32),
    "paged_attention": lambda: kernel_cases.attention((2, 1, 40), (4, 2, 64), CPU, torch.float32),
    "norm_rope_write": lambda: kernel_cases.norm_rope(5, (4, 2, 64), CPU, torch.float32),
    "overlap_f1": lambda: kernel_cases.overlap(8, 2, 16, CPU),
    "word_f1": lambda: kernel_cases.words(64, 16, CPU),
}


def doubled(found):
    """A result of a kernel, with all numbers but counts off."""
    if isinstance(found, torch.Tensor):
        return found * 2
    if isinstance(found, tuple) and not hasattr(found, "_replace"):
        return found[0], found[1] + 1
    name = "scores" if hasattr(found, "scores") else "best_logit"
    return SimpleNamespace(**{name: getattr(found, name) + 1})


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels run in Triton's interpreter")
@pytest.mark.parametrize("name", list(KERNELS))
def test_kernels(monkeypatch, name):
    KERNELS[name]().check()
    if name == "norm_rope_write":
        monkeypatch.setattr(kernel_cases, name, lambda *args, **kwargs: None)
    else:
        case = KERNELS[name]()
        monkeypatch.setattr(kernel_cases, name, off_by(getattr(kernel_cases, name), doubled))
    with pytest.raises(AssertionError):
        (case if name != "norm_rope_write" else KERNELS[name]()).check()


def shifted(batch):
    """Rewards that are a little off, but for rows alone."""
    if len(batch) == 1:
        return batch
    return replace(batch, rewards=[(reward or 0.0) + 0.01 for reward in batch.rewards])


def all_shifted(batch):
    return replace(batch, rewards=[(reward or 0.0) + 0.5 for reward in batch.rewards])


@pytest.mark.parametrize(
    ("style", "change"),
    [("direct", shifted), ("standalone", all_shifted), ("likelihood", all_shifted)],
)
def test_rewards(monkeypatch, style, change):
    def run(benchmark):
        bench_reward.bench_rl_step(benchmark, SIZES, GROUPS, "cpu", style)

    check(monkeypatch, break_attribute(FlipReward, "score", change), run)


@pytest.mark.slow
def test_best_of(monkeypatch):
    def other(found):
        return replace(found, best=(found.best + 1) % len(found))

    def run(benchmark):
        bench_fewer_steps.bench_best_of_n(benchmark, GROUPS, SIZES, "direct")

    check(monkeypatch, break_attribute(FlipReward, "score_best_of", other), run)


@pytest.mark.slow
def test_steps(monkeypatch):
    calls = iter(range(100))

    def drifting(found):
        batch, run = found
        return batch, run._replace(rewards=[next(calls)])

    def run(benchmark):
        bench_fewer_steps.compare(
            benchmark,
            GROUPS,
            QUICK,
            ({"style": "direct"}, bench_fewer_steps.scored),
            ({"style": "direct"}, bench_fewer_steps.scored),
            same=True,
        )

    check(monkeypatch, break_attribute(bench_fewer_steps, "score", drifting), run)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["decode", "mixed"])
def test_host(monkeypatch, kind):
    """Rows that are laid out one position off."""

    def shifted(step):
        step.arrays["positions"] += 1
        return step

    plant = break_attribute(BatchBuilder, "build", shifted)
    check(monkeypatch, plant, lambda benchmark: bench_host.bench_step(benchmark, kind))


class OneRound(Untimed):
    """Runs what it would time: servers are compared while they are timed."""

    def pedantic(self, run, *args, **kwargs):
        run()


def test_serving(monkeypatch):
    @contextmanager
    def server(*_):
        yield "http://127.0.0.1:1", None

    async def by_callers(score_row, rows, n_callers):
        return [0.0] * len(rows), 1.0

    monkeypatch.setattr(bench_serving, "server", server)
    monkeypatch.setattr(bench_serving, "by_callers", by_callers)
    rows = bench_serving.Asked([("a", "b")], [("c", "d")])
    monkeypatch.setattr(bench_serving, "in_process", lambda rows: ([0.0], 1.0))
    benchmark = OneRound()
    bench_serving.bench_many_callers(benchmark, rows, QUICK)
    assert benchmark.extra_info["ratio"] == 1.0
    monkeypatch.setattr(bench_serving, "in_process", lambda rows: ([0.5], 1.0))
    with pytest.raises(AssertionError):
        bench_serving.bench_many_callers(OneRound(), rows, QUICK)
