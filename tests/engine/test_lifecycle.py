"""Sleep, wake, new weights, close; and two engines side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from flipfast.engine.lifecycle import LoadedModel
from flipfast.engine.sampling import SamplingParams
from flipfast.engine.sequence import Sequence
from flipfast.errors import FlipfastError, ModelLoadError
from tests.engine.toy_models import SMALL, load, prompts, run, save_random_model

PARAMS = SamplingParams(max_new_tokens=5)
IDS = prompts([40, 70, 90], SMALL["vocab_size"], stem=36)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models of one shape."""
    make = tmp_path_factory.mktemp
    return (
        save_random_model(make("one"), "Qwen3Config", seed=1, **SMALL),
        save_random_model(make("two"), "Qwen3Config", seed=2, **SMALL),
    )


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(folders: tuple[Path, Path], device: str) -> LoadedModel:
    return load(folders[0], device=device, dtype="float32")


@pytest.mark.gpu
@pytest.mark.parametrize("drop_weights", [False, True])
def test_sleep_gives_the_devices_memory_back(
    folders: tuple[Path, Path], drop_weights: bool
) -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    model = load(folders[0], device="cuda", dtype="float32")
    expected = run(model, IDS, PARAMS)
    awake = torch.cuda.memory_allocated()
    model.sleep(drop_weights=drop_weights)
    assert torch.cuda.memory_allocated() - before < 0.02 * (awake - before)
    model.wake()
    assert run(model, IDS, PARAMS) == expected
    model.close()
    assert torch.cuda.memory_allocated() - before < 0.02 * (awake - before)


@pytest.mark.gpu
def test_a_step_that_runs_out_of_memory_is_tried_in_parts(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folders[0], device="cuda", dtype="float32")
    expected = run(model, IDS, PARAMS)
    runner = model._runner
    assert runner is not None
    plain = runner.decoder.forward

    def forward(input_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(input_ids) > 64:
            torch.empty(2**50, device="cuda")
        return plain(input_ids, *rest)

    monkeypatch.setattr(runner.decoder, "forward", forward)
    model.engine.forget_prefixes()
    assert run(model, IDS, PARAMS) == expected
    assert model.engine.counters.failed_steps > 0


@pytest.mark.parametrize("drop_weights", [False, True])
def test_sleep_and_wake(model: LoadedModel, drop_weights: bool) -> None:
    before = run(model, IDS, PARAMS)
    model.sleep(drop_weights=drop_weights)
    with pytest.raises(FlipfastError, match="asleep: call wake"):
        model.require_usable()
    with pytest.raises(FlipfastError, match="asleep"):
        model.sleep()
    with pytest.raises(FlipfastError, match="asleep"):
        model.update_weights({})
    model.wake()
    model.wake()  # awake already: nothing happens
    prefix_tokens = model.engine.counters.prefix_tokens
    assert run(model, IDS[:1], PARAMS) == before[:1]
    assert model.engine.counters.prefix_tokens == prefix_tokens  # the pages came back empty
    assert run(model, IDS, PARAMS) == before


def test_dropped_weights_are_the_newest_when_they_come_back(
    folders: tuple[Path, Path], model: LoadedModel, device: str
) -> None:
    model.update_weights(folders[1])
    model.sleep(drop_weights=True)
    model.wake()
    assert run(model, IDS, PARAMS) == run(
        load(folders[1], device=device, dtype="float32"), IDS, PARAMS
    )


@pytest.mark.parametrize("kind", ["folder", "state dict", "trainer's state dict"])
def test_new_weights(
    folders: tuple[Path, Path], model: LoadedModel, kind: str, device: str
) -> None:
    old = run(model, IDS, PARAMS)
    expected = run(load(folders[1], device=device, dtype="float32"), IDS, PARAMS)
    assert old != expected
    state = load_file(folders[1] / "model.safetensors")
    if kind == "folder":
        model.update_weights(folders[1])
    elif kind == "state dict":
        model.update_weights(state)
    else:  # parameters that require grad
        model.update_weights({name: torch.nn.Parameter(t) for name, t in state.items()})
    assert run(model, IDS, PARAMS) == expected
    model.update_weights(folders[0])
    assert run(model, IDS, PARAMS) == old


def test_weights_that_come_in_half_are_not_used(
    folders: tuple[Path, Path], model: LoadedModel, device: str
) -> None:
    state = load_file(folders[1] / "model.safetensors")
    name = sorted(state)[-1]
    del state[name]
    with pytest.raises(ModelLoadError, match="missing"):
        model.update_weights(state)
    with pytest.raises(FlipfastError, match="only in part"):
        model.require_usable()
    model.update_weights(folders[1])
    model.require_usable()
    assert run(model, IDS, PARAMS) == run(
        load(folders[1], device=device, dtype="float32"), IDS, PARAMS
    )


def test_weights_of_another_shape_are_refused(model: LoadedModel, tmp_path: Path) -> None:
    before = run(model, IDS, PARAMS)
    other = save_random_model(tmp_path, "Qwen3Config", **{**SMALL, "num_hidden_layers": 3})
    with pytest.raises(FlipfastError, match="another shape"):
        model.update_weights(other)
    assert run(model, IDS, PARAMS) == before


def test_running_requests_stand_in_the_way(folders: tuple[Path, Path], model: LoadedModel) -> None:
    sequence = Sequence(IDS[0], PARAMS)
    model.engine.add(sequence)
    model.engine.step()
    for act in (model.sleep, lambda: model.update_weights(folders[1])):
        with pytest.raises(FlipfastError, match="1 requests running"):
            act()
    model.engine.cancel(sequence)
    model.sleep()


def test_close_is_for_good(model: LoadedModel) -> None:
    model.engine.add(Sequence(IDS[0], PARAMS))
    model.engine.step()
    model.close()
    model.close()
    for act in (model.require_usable, model.sleep, lambda: model.update_weights({})):
        with pytest.raises(FlipfastError, match="closed"):
            act()
    assert model.engine.counters.pages > 0


def test_two_engines_do_not_meet(folders: tuple[Path, Path], device: str) -> None:
    alone = [run(load(folder, device=device, dtype="float32"), IDS, PARAMS) for folder in folders]
    engines = [load(folder, device=device, dtype="float32") for folder in folders]
    sequences = [[Sequence(ids, PARAMS) for ids in IDS] for _ in engines]
    for engine, mine in zip(engines, sequences, strict=True):
        for sequence in mine:
            engine.engine.add(sequence)
    for _ in range(12):  # by turns
        for engine in engines:
            engine.engine.step()
    for expected, mine in zip(alone, sequences, strict=True):
        assert [s.output_ids for s in mine] == [output for output, _, _ in expected]
