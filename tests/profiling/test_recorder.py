"""Nested stages, with clocks that are moved by hand."""

import pytest

from flipfast.profiling.recorder import Cost, Rates, Recorder

RATES = Rates(bytes_a_s=100.0, flops_a_s=10.0)


class Hands:
    """A clock of the host and one of the device, which `work` moves."""

    def __init__(self):
        self.host = self.device = 0.0

    def mark(self):
        return self.device

    def between(self, first, last):
        return last - first

    def work(self, host=0.0, device=0.0):
        self.host += host
        self.device += device


@pytest.fixture
def hands():
    return Hands()


def by_name(recorder):
    return {stage.name: stage for stage in recorder.totals(RATES)}


def test_a_stage_has_the_time_that_the_stages_inside_it_have_not(hands):
    recorder = Recorder(hands, now=lambda: hands.host)
    with recorder.stage("whole"):
        hands.work(host=1)
        with recorder.stage("step", on_device=True):
            hands.work(host=2, device=10)
            with recorder.stage("plan"):
                hands.work(host=4)
                with recorder.stage("product", on_device=True):
                    hands.work(host=8, device=20)
            with recorder.stage("product", on_device=True):
                hands.work(host=16, device=40)
    stages = by_name(recorder)
    assert {name: stage.host_s for name, stage in stages.items()} == {
        "product": 24, "plan": 4, "step": 2, "whole": 1,
    }  # fmt: skip
    assert (stages["product"].device_s, stages["step"].device_s) == (60, 10)
    assert stages["plan"].device_s is None
    assert (stages["plan"].seconds, stages["product"].seconds) == (4, 60)
    assert stages["product"].calls == 2


def test_without_a_device_of_its_own_all_time_is_the_hosts(hands):
    recorder = Recorder(now=lambda: hands.host)
    with recorder.stage("product", on_device=True):
        hands.work(host=3, device=9)
    stage = by_name(recorder)["product"]
    assert (stage.host_s, stage.device_s, stage.seconds) == (3, None, 3)


def test_work_and_floor_add_up_over_calls(hands):
    recorder = Recorder(now=lambda: hands.host)
    for cost in (Cost(1000.0, 50.0), lambda: Cost(100.0, 50.0)):
        with recorder.stage("product") as note:
            hands.work(host=10)
            note(cost)
    stage = by_name(recorder)["product"]
    assert (stage.n_bytes, stage.flops) == (1100.0, 100.0)
    assert stage.floor_s == 10.0 + 5.0  # bytes bind the first call, operations the second


def test_a_call_that_did_nothing_is_no_call(hands):
    recorder = Recorder(now=lambda: hands.host)
    with recorder.stage("maybe") as note:
        note(None)
    with recorder.stage("open"):
        pass
    stages = by_name(recorder)
    assert list(stages) == ["open"]
    assert stages["open"].n_bytes is None
    assert stages["open"].floor_s is None


def test_a_stage_ends_when_something_is_raised(hands):
    recorder = Recorder(now=lambda: hands.host)

    def fail():
        with recorder.stage("broken", leaf=True):
            assert recorder.in_leaf
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert not recorder.in_leaf
    assert by_name(recorder)["broken"].calls == 1
