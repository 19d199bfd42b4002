"""Heads and embeddings that a configuration ties: one tensor, or two, at load and in updates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from flipfast.engine.lifecycle import LoadedModel
from flipfast.engine.sampling import SamplingParams
from flipfast.errors import ModelLoadError
from tests.engine.models.paged import SHAPE, Paged, load_decoder, random_model
from tests.engine.toy_models import SMALL, load, prompts, run, save_random_model

FAMILIES = ["Llama", "Mistral", "Qwen2", "Qwen3", "Olmo2", "Olmo3", "Gemma3Text"]
PARAMS = SamplingParams(max_new_tokens=5)
IDS = prompts([40, 7], SMALL["vocab_size"])

State = dict[str, torch.Tensor]


def edit(folder: Path, change: Callable[[State], object]) -> Path:
    """Change a saved model's tensors, and nothing in its configuration."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def add_head(tensors: State, seed: int = 3) -> None:
    random = torch.Generator().manual_seed(seed)
    shape = tensors["model.embed_tokens.weight"].shape
    tensors["lm_head.weight"] = 0.3 * torch.randn(shape, generator=random)


def add_equal_head(tensors: State) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()


def head_alone(tensors: State) -> None:
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")


def tied_folder(folder: Path, family: str = "Qwen3") -> Path:
    config = getattr(transformers, f"{family}Config")(**SHAPE, tie_word_embeddings=True)
    random_model(config).save_pretrained(folder)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    return folder


def assert_as_transformers(folder: Path, ids: list[int]) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0]
    logits = Paged(load_decoder(folder), 1).step([(0, ids)], all_rows=True)
    assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("change", [add_head, add_equal_head, head_alone])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_tied_model_with_a_head_in_its_file(
    family: str, change: Any, tmp_path: Path, prompt: Callable[[int], list[int]]
) -> None:
    assert_as_transformers(edit(tied_folder(tmp_path, family), change), prompt(9))


def test_a_head_that_differs_counts(tmp_path: Path, prompt: Callable[[int], list[int]]) -> None:
    assert_as_transformers(edit(tied_folder(tmp_path), add_head), prompt(9))


@pytest.mark.slow
def test_in_shards(tmp_path: Path, prompt: Callable[[int], list[int]]) -> None:
    folder = edit(tied_folder(tmp_path), add_head)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number, name in enumerate(tensors):  # each in a file of its own
        save_file({name: tensors[name]}, folder / f"{number}.safetensors", {"format": "pt"})
        weight_map[name] = f"{number}.safetensors"
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_as_transformers(folder, prompt(9))


def test_a_head_that_does_not_differ_takes_no_memory(tmp_path: Path) -> None:
    tied = load_decoder(tied_folder(tmp_path)).weight_bytes()
    assert load_decoder(edit(tmp_path, add_equal_head)).weight_bytes() == tied
    assert load_decoder(edit(tmp_path, head_alone)).weight_bytes() == tied
    # In two dtypes, the same numbers are the same.
    edit(tmp_path, lambda t: t.update({n: w.bfloat16() for n, w in t.items()}))
    edit(tmp_path, lambda t: t.update({"model.embed_tokens.weight": t["lm_head.weight"].float()}))
    assert load_decoder(tmp_path).weight_bytes() == tied
    head = SHAPE["vocab_size"] * SHAPE["hidden_size"] * 4
    assert load_decoder(edit(tmp_path, add_head)).weight_bytes() == tied + head


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.embed_tokens.weight"), "the first is embed_tokens.weight"),
        (
            lambda t: t.update({"lm_head.weight": torch.zeros(3)}),
            r"lm_head.* has shape \(3,\)",
        ),
        (
            lambda t: t.update({"embed_tokens.weight": t["model.embed_tokens.weight"].clone()}),
            "embed_tokens.weight comes twice",
        ),
    ],
)
def test_what_is_broken(change: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=message):
        load_decoder(edit(tied_folder(tmp_path), change))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models of one shape: tied, with a head under the same config, and untied by its config."""
    make = tmp_path_factory.mktemp
    tied = save_random_model(make("tied"), "Qwen3Config", **SMALL, tie_word_embeddings=True)
    found = {"tied": tied}
    for name, seed, tie in (("headed", 3, True), ("untied", 4, False)):
        found[name] = edit(
            Path(shutil.copytree(tied, make(name) / "m")), lambda t, seed=seed: add_head(t, seed)
        )
        config = json.loads((found[name] / "config.json").read_text())
        (found[name] / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": tie}))
    return found


@pytest.fixture(
    params=[
        {"dtype": "float32"},
        {"weights": "int8"},
        pytest.param({"device": "cuda", "dtype": "float32"}, marks=pytest.mark.gpu),
    ]
)
def loaded(request: pytest.FixtureRequest) -> Callable[[Path], LoadedModel]:
    return lambda folder: load(folder, **request.param)


@pytest.mark.slow
def test_an_update_ties_and_unties(
    folders: dict[str, Path], loaded: Callable[[Path], LoadedModel]
) -> None:
    expected = {name: run(loaded(folder), IDS, PARAMS) for name, folder in folders.items()}
    assert len({str(outputs) for outputs in expected.values()}) == 3
    for first in folders:
        model = loaded(folders[first])
        for name in ("headed", "tied", "untied", "tied", first):
            model.update_weights(folders[name])
            assert run(model, IDS, PARAMS) == expected[name], (first, name)
            model.sleep(drop_weights=True)
            model.wake()
            assert run(model, IDS, PARAMS) == expected[name], (first, name)


@pytest.mark.slow
def test_a_state_dict_ties_and_unties(
    folders: dict[str, Path], loaded: Callable[[Path], LoadedModel]
) -> None:
    expected = {name: run(loaded(folder), IDS, PARAMS) for name, folder in folders.items()}
    states = {name: load_file(folder / "model.safetensors") for name, folder in folders.items()}
    states["both"] = dict(states["tied"])  # as state_dict() of a tied model has them
    states["both"]["lm_head.weight"] = states["both"]["model.embed_tokens.weight"]
    expected["both"] = expected["tied"]
    model = loaded(folders["tied"])
    for name in ("both", "headed", "tied", "untied", "both"):
        model.update_weights(states[name])
        assert run(model, IDS, PARAMS) == expected[name], name
    model.sleep()
    model.wake()
    assert run(model, IDS, PARAMS) == expected["both"]
    with pytest.raises(ModelLoadError, match=r"missing.*lm_head"):
        loaded(folders["untied"]).update_weights(states["tied"])


def test_no_memory_for_a_head(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders["tied"], weights="int8")
    assert model._runner is not None

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("tried to allocate 20 MiB")

    monkeypatch.setattr(model._runner.decoder.ops, "linear", full)
    with pytest.raises(ModelLoadError, match="no memory left.*20 MiB.*as a model of its own"):
        model.update_weights(folders["headed"])
