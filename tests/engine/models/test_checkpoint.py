"""Checkpoints whole, sharded and broken."""

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

from flipfast.engine.models.checkpoint import read_model
from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.errors import ModelLoadError
from tests.engine.models.paged import SHAPE, Paged, build_decoder, load_decoder, random_model


@pytest.fixture
def folder(tmp_path: Path, llama_folder: Path) -> Path:
    """A copy of the saved Llama, to be broken."""
    return Path(shutil.copytree(llama_folder, tmp_path / "model"))


@pytest.fixture
def edit(folder: Path) -> Callable[[Callable[[dict[str, torch.Tensor]], object]], Path]:
    """A function that changes the tensors of the copy."""

    def run(change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")
        return folder

    return run


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


@pytest.fixture
def sharded(tmp_path: Path, llama_folder: Path) -> Path:
    model = transformers.AutoModelForCausalLM.from_pretrained(llama_folder)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 3
    return tmp_path / "sharded"


def logits(folder: Path, ids: list[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return Paged(load_decoder(folder, dtype), 1).step([(0, ids)], all_rows=True)


def test_shards_make_the_same_model(
    sharded: Path, llama_folder: Path, prompt: Callable[[int], list[int]]
) -> None:
    assert torch.equal(logits(sharded, prompt(20)), logits(llama_folder, prompt(20)))


def test_bfloat16(tmp_path: Path, prompt: Callable[[int], list[int]]) -> None:
    model = random_model(transformers.Qwen3Config(**SHAPE)).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    _, checkpoint = read_model(str(tmp_path))
    assert checkpoint.dtype == torch.bfloat16
    ids = prompt(50)

    def peer(dtype: torch.dtype) -> torch.Tensor:
        loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
        with torch.no_grad():
            result: torch.Tensor = loaded(torch.tensor([ids])).logits[0].float()
        return result

    expected = peer(torch.float32)
    wide, narrow = logits(tmp_path, ids), logits(tmp_path, ids, torch.bfloat16)
    assert (wide - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert narrow.dtype == torch.float32
    error = (peer(torch.bfloat16) - expected).abs().max()
    assert 0 < (narrow - expected).abs().max() <= 2 * error


def test_names_without_prefix(
    edit: Callable[..., Path], llama_folder: Path, prompt: Callable[[int], list[int]]
) -> None:
    def strip(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("model.")] = tensors.pop(name)

    assert torch.equal(logits(edit(strip), prompt(9)), logits(llama_folder, prompt(9)))


def test_gemma3_with_images(tmp_path: Path, prompt: Callable[[int], list[int]]) -> None:
    vision = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "image_size": 28,
        "patch_size": 14,
    }
    text = {
        **SHAPE,
        "sliding_window": 16,
        "query_pre_attn_scalar": 20,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    }
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = transformers.Gemma3ForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    ids = prompt(40)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).logits[0]
    assert (logits(tmp_path, ids) - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_harmless_tensors_are_left_out(edit: Callable[..., Path]) -> None:
    edit(lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(12)}))
    load_decoder(edit(lambda t: t.update({"model.rotary_emb.inv_freq": torch.ones(12)})))
    value_head = {"v_head.summary.weight": torch.ones(1, 64), "v_head.summary.bias": torch.ones(1)}
    load_decoder(edit(lambda t: t.update(value_head)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), "1 tensors are missing.*norm.weight"),
        (lambda t: t.pop("lm_head.weight"), "missing.*lm_head.weight"),
        (
            lambda t: t.update({"model.layers.3.mlp.up_proj.weight": torch.ones(96, 64)}),
            "model.layers.3.mlp.up_proj.weight has no place",
        ),
        (
            lambda t: t.update({"model.layers.0.mlp.up_proj.bias": torch.ones(96)}),
            "model.layers.0.mlp.up_proj.bias has no place",
        ),
        (lambda t: t.update({"norm.weight": torch.ones(64)}), "norm.weight comes twice"),
        (
            lambda t: t.update({"model.layers.1.self_attn.k_proj.weight": torch.ones(64, 48)}),
            r"k_proj.weight has shape \(64, 48\).*asks for \(48, 64\) \(num_key_value_heads",
        ),
        (
            lambda t: t.update({"model.embed_tokens.weight": torch.ones(300, 64)}),
            r"embed_tokens.weight has shape \(300, 64\).*\(384, 64\) \(vocab_size, hidden_size\)",
        ),
    ],
)
def test_a_tensor_out_of_place(edit: Callable[..., Path], change: Any, message: str) -> None:
    folder = edit(change)
    with pytest.raises(ModelLoadError, match=f"{folder}/model.safetensors: .*{message}"):
        load_decoder(folder)


def test_a_tensor_of_whole_numbers(edit: Callable[..., Path], llama_folder: Path) -> None:
    folder = edit(lambda t: t.update({"model.norm.weight": torch.ones(64, dtype=torch.int8)}))
    with pytest.raises(UnsupportedModelError, match=r"model.safetensors.*model.norm.weight is I8"):
        read_model(str(folder))
    spec, checkpoint = read_model(str(llama_folder))
    whole = [("model.norm.weight", torch.ones(64, dtype=torch.int8))]
    with pytest.raises(ModelLoadError, match="given: the tensor model.norm.weight is torch.int8"):
        build_decoder(spec, checkpoint).load(whole, "given")


@pytest.mark.parametrize("size", [0, 4, 1000, -1])
def test_a_truncated_file(folder: Path, size: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelLoadError, match=f"{path} is truncated"):
        read_model(str(folder))


def test_a_truncated_shard(sharded: Path) -> None:
    path = sorted(sharded.glob("model-*.safetensors"))[1]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelLoadError, match=f"{path} is truncated"):
        read_model(str(sharded))


def test_an_absent_shard(sharded: Path) -> None:
    path = sorted(sharded.glob("model-*.safetensors"))[1]
    path.unlink()
    with pytest.raises(ModelLoadError, match=f"index.json names {path.name}, which is not in"):
        read_model(str(sharded))


def test_a_shard_without_its_tensor(sharded: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    edit_json(index, lambda c: c["weight_map"].update(stray=c["weight_map"]["lm_head.weight"]))
    with pytest.raises(ModelLoadError, match=f"{index} puts 1 tensors.*stray"):
        read_model(str(sharded))


@pytest.mark.parametrize("content", ["", "[]", "{", "\ud83d"])
def test_a_broken_config(folder: Path, content: str) -> None:
    path = folder / "config.json"
    path.write_bytes(content.encode("utf-16", "surrogatepass"))
    with pytest.raises(ModelLoadError, match=f"{path}"):
        read_model(str(folder))


def test_an_index_without_a_map(sharded: Path) -> None:
    edit_json(sharded / "model.safetensors.index.json", lambda c: c.pop("weight_map"))
    with pytest.raises(ModelLoadError, match=r"index.json: the field 'weight_map' is None"):
        read_model(str(sharded))


def test_errors_of_a_config_name_its_file(folder: Path) -> None:
    path = folder / "config.json"
    edit_json(path, lambda c: c.pop("hidden_size"))
    with pytest.raises(ModelLoadError, match=f"{path}: the field 'hidden_size' is missing"):
        read_model(str(folder))
    edit_json(path, lambda c: c.update(architectures=["GPT2LMHeadModel"]))
    with pytest.raises(UnsupportedModelError, match=f"{path}: GPT2LMHeadModel"):
        read_model(str(folder))


def test_no_files(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnsupportedModelError, match="no model.safetensors"):
        read_model(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(ModelLoadError, match="there is no .*config.json"):
        read_model(str(folder))


@pytest.mark.parametrize("name", ["", "./no-such-folder", "/no/such/folder", "a/b/c"])
def test_no_folder(name: str) -> None:
    with pytest.raises(ModelLoadError, match="there is no folder"):
        read_model(name)


def test_a_file_instead_of_a_folder(folder: Path) -> None:
    with pytest.raises(ModelLoadError, match="is a file"):
        read_model(str(folder / "config.json"))
