"""What is noted of a profile; that every stage has its sentence; a wrong result stops it."""

from itertools import count
from types import SimpleNamespace

import pytest

from bench import bench_profile
from bench.bench_profile import Setting, noted, profiled
from bench.report.remedies import REMEDIES, remedy
from bench.sizes import QUICK, Workload
from flipfast import FlipReward
from flipfast.engine.ops.base import Ops
from flipfast.profiling import runs
from flipfast.profiling.recorder import Rates, Recorder
from flipfast.profiling.stages import DEVICE_PARTS, INVERTER_PARTS, PARTS, _public_methods

TEXTS = (["Name a river.", "Bake bread."], ["The Ebro.", "Bread is made of flour."])


class Benchmark(SimpleNamespace):
    """Calls what it is to time once."""

    def pedantic(self, call, setup, rounds):
        setup()
        return call()


@pytest.fixture(autouse=True)
def _rates(monkeypatch):
    """Of no device: to measure them takes long where it has no such product."""
    monkeypatch.setattr(runs, "measure_rates", lambda *_: Rates(1e10, 1e11))


@pytest.fixture(scope="module")
def reward():
    with FlipReward(style="direct", device="cpu", max_new_tokens=4) as reward:
        yield reward


def test_every_stage_has_its_sentence():
    stages = {part[2] for part in (*PARTS, *DEVICE_PARTS)} | {part[1] for part in INVERTER_PARTS}
    stages |= {*_public_methods(Ops), "attention", "write keys", "product"}
    assert stages == set(REMEDIES)
    assert remedy("product 12 x 34") == REMEDIES["product"]
    with pytest.raises(KeyError):
        remedy("productive")


def test_what_is_noted(reward, monkeypatch):
    ticks = map(float, count())  # a clock that goes on when it is looked at, and only then
    monkeypatch.setattr(runs, "time", SimpleNamespace(perf_counter=ticks.__next__))
    monkeypatch.setitem(Recorder.__init__.__kwdefaults__, "now", ticks.__next__)
    profile, batch = profiled(reward, TEXTS)
    assert len(batch.rewards) == 2
    stages = noted(profile, "embedded")
    names = [stage["name"] for stage in stages]
    assert {"product 1792 x 320 (gate and up)", "product 4096 x 320 (head)", "attention"} <= {
        *names
    }
    assert len([name for name in names if "(" in name]) == 5
    seconds = [stage["seconds"] for stage in stages]
    assert seconds == sorted(seconds, reverse=True)
    assert sum(stage["share"] for stage in stages) == pytest.approx(1, abs=0.05)
    for stage in stages:
        assert remedy(stage["name"].partition(" (")[0])


@pytest.mark.parametrize("wrong", [False, True])
def test_a_wrong_result_leaves_no_figures(reward, wrong, monkeypatch):
    def planted(reward, texts):
        profile, batch = profiled(reward, texts)
        rewards = [1.5] * len(batch) if wrong else batch.rewards
        return profile, SimpleNamespace(rewards=rewards)

    monkeypatch.setattr(bench_profile, "profiled", planted)
    monkeypatch.setitem(QUICK.workloads, "rl-step", Workload(1, 2))
    source = [("Name a river.", ["The Ebro.", "Ebro"]), ("Bake bread.", ["Flour", "Bread"])]
    benchmark = Benchmark(extra_info={}, group=None)
    arguments = (benchmark, Setting("rl-step", "embedded", "cpu"), reward, QUICK, source)
    if wrong:
        with pytest.raises(AssertionError):
            bench_profile.bench_stages(*arguments)
        assert benchmark.extra_info == {}
    else:
        bench_profile.bench_stages(*arguments)
        assert benchmark.extra_info["n_rows"] == 2
        assert benchmark.extra_info["copy_gb_per_s"] > 0
