"""Checkpoints of 8-bit floats, as Qwen 3 and llm-compressor's models are published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from flipfast.engine.models.checkpoint import read_model
from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.engine.models.families import read_spec
from flipfast.engine.models.fp8 import FP8, with_scales
from flipfast.engine.models.lora import AdaptedCheckpoint, Adapter, LoraConfig
from flipfast.engine.ops.blocks import FP8_GROUPS, FP8_ROWS, Blocks, widened
from flipfast.engine.sampling import SamplingParams
from flipfast.errors import ModelLoadError
from tests.engine.models.paged import SHAPE, Paged, load_decoder, random_model
from tests.engine.toy_models import load, prompts, run

BLOCKS = {
    "activation_scheme": "dynamic",
    "fmt": "e4m3",
    "quant_method": "fp8",
    "weight_block_size": [128, 128],
}
NUMBERS = {"type": "float", "num_bits": 8, "symmetric": True, "dynamic": False}
ROWS = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {**NUMBERS, "strategy": "channel"},
            "input_activations": {**NUMBERS, "dynamic": True, "strategy": "token"},
        }
    },
    "ignore": ["lm_head"],
}


def in_blocks(weight: torch.Tensor, width: int, height: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each block by itself: 8-bit floats, and bfloat16 scales (rows / height, columns / width)."""
    n_out, n_in = weight.shape
    numbers = torch.empty(n_out, n_in, dtype=FP8)
    scales = torch.empty(-(-n_out // height), -(-n_in // width), dtype=torch.bfloat16)
    for i, j in ((i, j) for i in range(scales.shape[0]) for j in range(scales.shape[1])):
        here = slice(i * height, (i + 1) * height), slice(j * width, (j + 1) * width)
        scales[i, j] = weight[here].abs().max() / 448
        numbers[here] = (weight[here].float() / scales[i, j].float()).clamp(-448, 448).to(FP8)
    return numbers, scales


def save(folder: Path, quantization: Mapping[str, Any], n_files: int = 1, **shape: Any) -> Path:
    """A random Qwen 3 with 8-bit products."""
    config = transformers.Qwen3Config(**{**SHAPE, "hidden_size": 256, **shape})
    model = random_model(config).bfloat16()
    tensors = {}
    for name, weight in model.state_dict().items():
        if not name.endswith("_proj.weight"):
            tensors[name] = weight.clone()
        elif quantization is BLOCKS:
            tensors[name], tensors[f"{name}_scale_inv"] = in_blocks(weight, 128, 128)
        else:
            tensors[name], tensors[f"{name}_scale"] = in_blocks(weight, weight.shape[1], 1)
    if config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    names = sorted(tensors)
    shards = {f"model-{i}.safetensors": names[i::n_files] for i in range(n_files)}
    for file, held in shards.items():
        save_file({name: tensors[name] for name in held}, folder / file, {"format": "pt"})
    table = {name: file for file, held in shards.items() for name in held}
    index = {"metadata": {}, "weight_map": table}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    content = {**config.to_dict(), "architectures": ["Qwen3ForCausalLM"], "dtype": "bfloat16"}
    (folder / "config.json").write_text(
        json.dumps({**content, "quantization_config": quantization}), "utf-8"
    )
    return folder


def test_numbers_are_those_of_transformers(tmp_path: Path) -> None:
    """Theirs in bfloat16, which is what they make of them where there is no GPU."""
    save(tmp_path, BLOCKS, n_files=2, intermediate_size=384, head_dim=64)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    expected = theirs.state_dict()
    _, checkpoint = read_model(str(tmp_path))
    found = dict(checkpoint.tensors())
    for name, tensor in found.items():
        if name.endswith("_proj.weight"):
            assert isinstance(tensor, Blocks)
            assert tensor.kind == FP8_GROUPS
        assert torch.equal(widened(tensor).bfloat16(), expected[name]), name
    assert {name.removeprefix("model.") for name in found if "_proj" in name} == set(
        checkpoint.kinds
    )


@pytest.mark.parametrize(("quantization", "kind"), [(BLOCKS, FP8_GROUPS), (ROWS, FP8_ROWS)])
@pytest.mark.parametrize("n_files", [1, 3])
def test_models_run_as_their_numbers_do(
    tmp_path: Path, quantization: Any, kind: str, n_files: int
) -> None:
    """Sizes that are no multiples of 128, and scales in other files than their weights."""
    save(tmp_path, quantization, n_files, hidden_size=200, intermediate_size=300)
    _, checkpoint = read_model(str(tmp_path))
    assert set(checkpoint.kinds.values()) == {kind}
    assert checkpoint.dtype == torch.float32
    plain = transformers.AutoModelForCausalLM.from_config(
        transformers.Qwen3Config(**{**SHAPE, "hidden_size": 200, "intermediate_size": 300})
    )
    state = {name: widened(tensor).float() for name, tensor in checkpoint.tensors()}
    plain.load_state_dict(state, strict=False)
    ids = list(range(2, 40))
    with torch.no_grad():
        expected = plain.float().eval()(torch.tensor([ids])).logits[0]
    found = Paged(load_decoder(tmp_path, torch.float32), 1).step([(0, ids)], all_rows=True)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (5,), (5, 1)])
def test_scales_of_all_shapes(shape: tuple[int, ...]) -> None:
    numbers = torch.randn(5, 300).to(FP8)
    scale = torch.rand(shape, dtype=torch.float32) if shape else torch.tensor(0.3)
    tensors = [("w_scale", scale), ("w", numbers), ("other", torch.ones(2))]
    found = dict(with_scales(tensors, "here"))
    assert isinstance(found["w"], Blocks)
    assert found["w"].kind == FP8_ROWS
    expected = numbers.float() * (scale.reshape(-1, 1) if shape else scale)
    assert torch.equal(widened(found["w"]), expected)
    assert torch.equal(widened(found["other"]), torch.ones(2))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a.weight": torch.ones(4, 4).to(FP8)}, "a.weight is torch.float8_e4m3fn, and no scale"),
        ({"a.weight_scale": torch.ones(4, 1)}, "a scale of a.weight comes without 8-bit weights"),
        (
            {"a.weight": torch.ones(4, 4).to(FP8), "a.weight_scale": torch.ones(3, 1)},
            r"here: a.weight has shape \(4, 4\), and scales of shape \(3, 1\)",
        ),
        (
            {"a.weight": torch.ones(300, 300).to(FP8), "a.weight_scale_inv": torch.ones(2, 3)},
            r"scales of shape \(2, 3\): expected one of the whole",
        ),
        (
            {"a.weight": torch.ones(4, 4).to(FP8), "a.weight_scale": torch.ones(4, 1).int()},
            "here: a.weight has scales of torch.int32, not floats",
        ),
        (
            {"a.weight": torch.ones(4, 4).to(FP8), "a.weight_scale": torch.tensor(float("nan"))},
            "here: a.weight has a scale of nan",
        ),
        ({"a.k_scale": torch.ones(())}, "a scale of a.k comes.*keys and values are not served"),
    ],
)
def test_what_does_not_belong_together(tensors: Any, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        list(with_scales(tensors.items(), "here"))


def changed(path: str, value: object) -> dict[str, Any]:
    """The second configuration with another value, at names between dots."""
    content = json.loads(json.dumps(ROWS))
    *way, last = path.split("/")
    part = content
    for name in way:
        part = part[name]
    part[last] = value
    return dict(content)


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ({**BLOCKS, "fmt": "e5m2"}, "fmt 'e5m2' is not served here"),
        ({**BLOCKS, "activation_scheme": "static"}, "activation_scheme 'static'"),
        ({**BLOCKS, "weight_block_size": [64, 64]}, r"weight_block_size \[64, 64\]"),
        ({"quant_method": "gptq", "bits": 4}, "quant_method 'gptq'"),
        (changed("format", "pack-quantized"), "format 'pack-quantized'"),
        (changed("config_groups/group_0/weights/num_bits", 4), "weights.num_bits 4"),
        (changed("config_groups/group_0/weights/strategy", "group"), "weights.strategy 'group'"),
        (
            changed("config_groups/group_0/input_activations", None),
            "input_activations.type None",
        ),
        (
            changed("config_groups/group_0/input_activations/dynamic", False),
            "input_activations.dynamic False",
        ),
        (changed("config_groups", None), "config_groups None"),
        (changed("config_groups", {"FP8_DYNAMIC": ["Linear"]}), r"config_groups.FP8_DYNAMIC \["),
        (changed("config_groups/group_0/weights", "fp8"), "weights 'fp8'"),
        (changed("config_groups/group_0/output_activations", NUMBERS), "output_activations {"),
        (changed("kv_cache_scheme", NUMBERS), "kv_cache_scheme {"),
        (changed("transform_config", {"config_groups": {"R4": {}}}), "transform_config {"),
    ],
)
def test_other_quantisations_are_refused(quantization: Any, message: str) -> None:
    config = {**transformers.Qwen3Config(**SHAPE).to_dict(), "architectures": ["Qwen3ForCausalLM"]}
    with pytest.raises(UnsupportedModelError, match=message):
        read_spec({**config, "quantization_config": quantization})


def test_a_quantisation_that_is_no_table() -> None:
    config = {**transformers.Qwen3Config(**SHAPE).to_dict(), "architectures": ["Qwen3ForCausalLM"]}
    with pytest.raises(ModelLoadError, match="quantization_config is 'fp8', not a table"):
        read_spec({**config, "quantization_config": "fp8"})


def test_parameters_leave_their_gradients_behind() -> None:
    weight, scale = torch.nn.Parameter(torch.ones(4, 4).to(FP8)), torch.nn.Parameter(torch.ones(4))
    found = dict(with_scales({"a": weight, "a_scale": scale}.items(), "here"))["a"]
    assert isinstance(found, Blocks)
    assert found.scales is not None
    assert not found.data.requires_grad
    assert not found.scales.requires_grad


def test_an_adapter_is_merged_into_the_numbers(tmp_path: Path) -> None:
    save(tmp_path, BLOCKS, intermediate_size=384, head_dim=64)
    _, base = read_model(str(tmp_path))
    module = "layers.0.mlp.up_proj"
    parts = {"A": torch.randn(2, 256), "B": torch.randn(384, 2)}
    adapter = Adapter("adapter", LoraConfig(4.0, {}, by_root=False), {module: parts})
    merged = dict(AdaptedCheckpoint(base, adapter).tensors())[f"model.{module}.weight"]
    plain = dict(base.tensors())[f"model.{module}.weight"]
    expected = widened(plain) + (parts["B"] @ parts["A"]) * 2.0
    torch.testing.assert_close(merged, expected)


def test_updates_come_in_8_bits(tmp_path: Path) -> None:
    """As a folder, and as a state dict with scales, into an engine that multiplies floats."""
    save(tmp_path, BLOCKS, 2, intermediate_size=384, head_dim=64)
    model = load(tmp_path, dtype="float32")
    ids, params = prompts([2, 9], 384), SamplingParams(max_new_tokens=3)
    expected = run(model, ids, params)
    state = {k: v for file in tmp_path.glob("*.safetensors") for k, v in load_file(file).items()}
    zeros = {k: v if k.endswith("_scale_inv") else torch.zeros_like(v) for k, v in state.items()}
    for source in (state, tmp_path):
        model.update_weights(zeros)
        assert run(model, ids, params) != expected
        model.update_weights(source)
        assert run(model, ids, params) == expected
    name = "model.layers.0.mlp.up_proj.weight_scale_inv"
    del state[name]
    with pytest.raises(ModelLoadError, match=r"up_proj.weight is .*, and no scale comes with it"):
        model.update_weights(state)
