"""A wrong result stops a benchmark before anything is timed."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("triton")

from bench import (
    bench_cpu_ops,
    bench_fewer_steps,
    bench_import,
    bench_reward,
    bench_serving,
    bench_stages,
    bench_text_core,
)
from bench.sizes import QUICK, Requests
from flipfast import FlipReward
from flipfast.engine.ops.cpu import CpuLinear, CpuOps

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


class BrokenDrafter(bench_text_core.Drafter):
    def propose(self, *args):
        return [(tokens[1:], chances[1:]) for tokens, chances in super().propose(*args)]


class Options:
    def getoption(self, name):
        return None


def sources():
    return [[[-1, 3, 4, 5, 6, 7], [9, 3, 4, 8, 7, 7]]] * 3


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
    "extract": (
        lambda patch: patch.setitem(
            bench_text_core.EXTRACTORS, "robust", (lambda text: text[:-1], False)
        ),
        lambda benchmark: bench_text_core.bench_extract(benchmark, PAIRS, "robust"),
    ),
    "draft index": (
        lambda patch: patch.setattr(bench_text_core, "Drafter", BrokenDrafter),
        lambda benchmark: bench_text_core.bench_draft_lookup(benchmark, sources(), "index"),
    ),
    "draft proposals": (
        lambda patch: patch.setattr(bench_text_core, "Drafter", BrokenDrafter),
        lambda benchmark: bench_text_core.bench_draft_lookup(benchmark, sources(), "propose"),
    ),
}


@pytest.mark.parametrize("case", list(TEXT_CORE))
def test_text_core(monkeypatch, case):
    check(monkeypatch, *TEXT_CORE[case])


CPU_OPS = {
    "product": (
        break_attribute(CpuLinear, "__call__", lambda out: out.mul_(1.01)),
        lambda benchmark: bench_cpu_ops.bench_product(benchmark, (64, 32), 3, "float32"),
    ),
    **{
        name: (
            break_attribute(CpuOps, name, lambda out: out.mul_(1.01)),
            lambda benchmark, name=name: bench_cpu_ops.bench_rows(benchmark, name, 2, "cpu"),
        )
        for name in ("embed", "rms_norm", "add_rms_norm", "gated")
    },
    "argmax": (
        break_attribute(CpuOps, "argmax", lambda best: best + 1),
        lambda benchmark: bench_cpu_ops.bench_rows(benchmark, "argmax", 2, "cpu"),
    ),
    "rotation": (
        lambda patch: patch.setattr(CpuOps, "norm_rope", lambda *args: None),
        lambda benchmark: bench_cpu_ops.bench_rows(benchmark, "norm_rope", 2, "cpu"),
    ),
    "attention": (
        lambda patch: patch.setattr(
            bench_cpu_ops.Backend, "attend", lambda self, q, cache, data, out, **_: out.zero_()
        ),
        lambda benchmark: bench_cpu_ops.bench_attention(
            benchmark, (2, 1, bench_cpu_ops.numbers(2, 16, 128)), "cpu", "float32"
        ),
    ),
}


@pytest.mark.parametrize("case", list(CPU_OPS))
def test_cpu_ops(monkeypatch, case):
    check(monkeypatch, *CPU_OPS[case])


@pytest.fixture(scope="module")
def stage():
    requests = Requests("embedded", "cpu", 3, 40, 8, 5, batch=3, draft=2, rounds=1)
    yield from bench_stages.stage.__wrapped__(requests)


@pytest.mark.parametrize("name", ["bench_prefill", "bench_decode", "bench_verify"])
def test_stages(monkeypatch, stage, name):
    run = getattr(bench_stages, name)
    decoder = stage.model._model._runner.decoder
    plant = break_attribute(decoder, "best", lambda tokens: (tokens + 1) % 4096)
    check(monkeypatch, plant, lambda benchmark: run(benchmark, stage))


def test_drafts_that_change_an_output(monkeypatch, stage):
    outputs = stage.model.outputs

    def wrong(prompts, drafts=None):
        found = outputs(prompts, drafts)
        return found if drafts is None else [output[::-1] for output in found]

    check(
        monkeypatch,
        lambda patch: patch.setattr(stage.model, "outputs", wrong),
        lambda benchmark: bench_stages.bench_verify(benchmark, stage),
    )


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
        bench_reward.bench_rl_step(benchmark, GROUPS[:4], QUICK, "cpu", style)

    check(monkeypatch, break_attribute(FlipReward, "score", change), run)


def test_best_of(monkeypatch):
    def other(found):
        return replace(found, best=(found.best + 1) % len(found))

    def run(benchmark):
        bench_reward.bench_best_of_n(benchmark, GROUPS[:4], "direct", "score_best_of")

    check(monkeypatch, break_attribute(FlipReward, "score_best_of", other), run)


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


def test_imports(monkeypatch):
    def run(benchmark):
        bench_import.bench_import(benchmark, QUICK, "flipfast")

    heavy = break_attribute(bench_import, "told", lambda found: (found[0], [*found[1], "torch"]))
    check(monkeypatch, heavy, run)


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
