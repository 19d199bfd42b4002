"""Which stages a run opens; that they are gone afterwards and change no result."""

import pytest
import torch

from flipfast import FlipReward
from flipfast.engine.cuda_graphs import StepGraphs
from flipfast.engine.ops.base import Ops
from flipfast.profiling import costs, stages
from flipfast.profiling.rates import measure_rates
from flipfast.profiling.recorder import Rates, Recorder
from flipfast.profiling.stages import DEVICE_PARTS, PARTS, _owner, instrumented

INSTRUCTIONS = ["Name a river in Spain.", "Name a river in Spain."]
RESPONSES = ["The Ebro is a river in Spain.", "Bread is made of flour, water and yeast."]
RATES = Rates(1e9, 1e9)


@pytest.fixture(scope="module")
def reward():
    with FlipReward(device="cpu", dtype="float32", max_new_tokens=4) as reward:
        yield reward


@pytest.mark.parametrize("part", [*PARTS, *DEVICE_PARTS], ids=lambda part: part[1])
def test_every_part_is_there(part):
    module, name, *_ = part
    if part in DEVICE_PARTS:
        pytest.importorskip("triton")
    owner, attribute = _owner(module, name)
    assert callable(vars(owner)[attribute])


def test_the_stages_of_a_run(reward):
    plain = reward.score(INSTRUCTIONS, RESPONSES)
    reward.inverter.forget_prefixes()
    before = reward.inverter.counters
    recorder = Recorder()
    with instrumented(recorder):
        profiled = reward.score(INSTRUCTIONS, RESPONSES)
    after = reward.inverter.counters
    assert profiled.to_dicts() == plain.to_dicts()
    stages = {stage.name: stage for stage in recorder.totals(RATES)}
    n_steps, n_layers = after.steps - before.steps, 4
    n_rows = after.computed_tokens - before.computed_tokens
    counts = {name: stage.calls for name, stage in stages.items()}
    assert counts["rest"] == counts["inverter, rest"] == counts["word F1"] == 1
    assert counts["prompts"] == counts["parsing"] == counts["decoding"] == 2
    assert counts["step, rest"] == counts["embed"] == counts["argmax"] == n_steps
    assert counts["attention"] == counts["norm_rope_write"] == n_steps * n_layers
    assert counts["product 640 x 320"] == n_steps * n_layers
    # Of every row computed, in each layer; the head takes the rows that are sampled.
    assert stages["product 640 x 320"].flops == 2 * 640 * 320 * n_rows * n_layers
    assert "write keys" not in counts  # a part of the one before
    assert stages["product 4096 x 320"].flops < 2 * 4096 * 320 * n_rows
    assert all(stage.n_bytes is not None for name, stage in stages.items() if name in costs.OPS)


def test_everything_is_put_back(reward):
    owners = [_owner(module, name) for module, name, *_ in PARTS]
    owners += [(StepGraphs, "fits"), (Ops, "argmax"), (type(reward.inverter), "generate")]
    before = [vars(owner)[name] for owner, name in owners]

    def fail():
        with instrumented(Recorder()):
            assert all(vars(o)[n] is not old for (o, n), old in zip(owners, before, strict=True))
            assert not StepGraphs.fits(None, None)
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert all(vars(o)[n] is old for (o, n), old in zip(owners, before, strict=True))


def test_every_operation_has_its_work_counted():
    """One that the table lacks is shown without bytes: give it a formula."""
    names = {name for name, value in vars(Ops).items() if callable(value)}
    operations = {name for name in names if not name.startswith("_")} - set(stages._MAKERS)
    assert operations == set(costs.OPS)


@pytest.mark.slow
def test_rates_are_those_of_a_machine():
    rates = measure_rates(torch.device("cpu"), torch.float32)
    assert 1e7 < rates.bytes_a_s < 1e14
    assert 1e7 < rates.flops_a_s < 1e16


@pytest.mark.gpu
def test_the_stages_of_a_run_on_the_device():
    from flipfast.profiling.recorder import CudaClock

    with FlipReward(max_new_tokens=4) as reward:
        plain = reward.score(INSTRUCTIONS, RESPONSES)
        recorder = Recorder(CudaClock())
        with instrumented(recorder):
            profiled = reward.score(INSTRUCTIONS, RESPONSES)
        assert profiled.rewards == plain.rewards
        stages = {stage.name: stage for stage in recorder.totals(RATES)}
        assert stages["attention"].device_s > 0
        assert stages["prompts"].device_s is None
