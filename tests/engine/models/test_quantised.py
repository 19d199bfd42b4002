"""Quantised weights on the CPU: whole models of them against float64, and every way they come."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

from flipfast import FlipReward
from flipfast.engine.lifecycle import LoadedModel
from flipfast.engine.loading import _ops, load_engine
from flipfast.engine.models.checkpoint import read_model
from flipfast.engine.models.lora import AdaptedCheckpoint, read_adapter
from flipfast.engine.ops.base import Linear
from flipfast.engine.ops.blocks import KINDS
from flipfast.engine.ops.cpu_linear import CpuLinear
from flipfast.engine.ops.cpu_quantized import QuantizedCpuLinear
from flipfast.engine.options import EngineOptions
from flipfast.engine.sampling import SamplingParams
from flipfast.errors import ConfigError, ModelLoadError
from tests.engine.models.gguf_files import dequantised, write_gguf
from tests.engine.models.paged import SHAPE, random_model
from tests.engine.models.test_gguf import GEMMA3
from tests.engine.toy_models import run

# Widths of whole blocks of every kind, and rows that are no whole panels.
WIDE = {**SHAPE, "hidden_size": 256, "intermediate_size": 512, "head_dim": 64, "vocab_size": 392}
WIDE["initializer_range"] = 0.1
MIXED = {"attn_v": "Q6_K", "ffn_up": "Q8_0", "ffn_down": "Q4_1", "token_embd": "Q4_0"}
PARAMS = SamplingParams(max_new_tokens=1)


def model_of(family: str = "Llama", **shape: Any) -> Any:
    return random_model(getattr(transformers, f"{family}Config")(**{**WIDE, **shape}))


def load(path: Path, adapter: Path | None = None, **options: Any) -> LoadedModel:
    spec, checkpoint = read_model(str(path))
    if adapter is not None:
        checkpoint = AdaptedCheckpoint(checkpoint, read_adapter(str(adapter)))
    given = EngineOptions(**{"device": "cpu", "dtype": "float32", "memory": 2**27, **options})
    return load_engine(spec, checkpoint, given, end_ids=frozenset())


def logits_of(model: LoadedModel, prompts: list[list[int]]) -> torch.Tensor:
    """Logits after each prompt, (prompts, vocabulary)."""
    found = [
        torch.frombuffer(bytearray(bits), dtype=torch.float32)
        for *_, bits in run(model, prompts, PARAMS)
    ]
    return torch.stack(found)


def products(model: LoadedModel) -> list[Linear]:
    assert model._runner is not None
    return model._runner.decoder._linears()


def table(model: LoadedModel) -> object:
    assert model._runner is not None
    return model._runner.decoder._embedding


def with_rounded_matrices(model: Any, kind: str, kinds: dict[str, str]) -> Any:
    """The model with what a file holds of its matrices, as `write_gguf` names them."""
    parts = {"v_proj": "attn_v", "k_proj": "attn_k", "up_proj": "ffn_up", "down_proj": "ffn_down",
             "embed_tokens": "token_embd", "lm_head": "output."}  # fmt: skip
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                part = next((own for theirs, own in parts.items() if theirs in name), "")
                stored = kinds.get(part, kind)
                weight.copy_(torch.from_numpy(dequantised(weight.numpy(), stored)))
    return model


def rounded_rows(module: object, given: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """What products of bytes see of their input: 32 numbers are steps of one size."""
    x = given[0]
    blocks = x.unflatten(-1, (-1, 32))
    step = blocks.abs().amax(-1, keepdim=True) / 127
    return ((blocks / torch.where(step > 0, step, 1)).round() * step).flatten(-2)


@pytest.fixture
def rounded_inputs() -> Iterator[Callable[[Any], None]]:
    """A function that makes all products of a model round their inputs as ours do."""
    hooks = []

    def plant(model: Any) -> None:
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                hooks.append(module.register_forward_pre_hook(rounded_rows))

    yield plant
    for hook in hooks:
        hook.remove()


CASES: dict[str, tuple[str, dict[str, Any], str, dict[str, str]]] = {
    **{kind: ("Llama", {}, kind, {}) for kind in KINDS},
    "tied": ("Llama", {"tie_word_embeddings": True}, "Q6_K", {}),
    "mixed": ("Llama", {"attention_bias": True}, "Q4_K", MIXED),
    "qwen3": ("Qwen3", {}, "Q4_1", MIXED),
    "gemma3": ("Gemma3Text", {**GEMMA3, "query_pre_attn_scalar": 64}, "Q4_0", MIXED),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_differ_from_float64_by_what_inputs_are_rounded_by(
    case: str,
    tmp_path: Path,
    prompt: Callable[[int], list[int]],
    rounded_inputs: Callable[[Any], None],
) -> None:
    family, shape, kind, kinds = CASES[case]
    write_gguf(tmp_path / "model.gguf", model_of(family, **shape), kind, kinds=kinds)
    model = load(tmp_path / "model.gguf")
    assert all(isinstance(product, QuantizedCpuLinear) for product in products(model))
    reference = with_rounded_matrices(model_of(family, **shape), kind, kinds).double()
    short, long = [[token] for token in prompt(32)], [prompt(n) for n in range(2, 60, 7)]

    def expected(prompts: list[list[int]]) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([reference(torch.tensor([ids])).logits[:, -1] for ids in prompts])

    exact = expected(short), expected(long)
    rounded_inputs(reference)
    rounded = expected(short), expected(long)
    found = logits_of(model, short), logits_of(model, long)
    for ours, plain, other in zip(found, exact, rounded, strict=True):
        # In float32 a few numbers are rounded the other way: an error of half a step as well.
        effect = (other - plain).norm(dim=1)
        assert ((effect > 0) & (effect < 0.2 * plain.norm(dim=1))).all()
        assert ((ours - plain).norm(dim=1) < 1.2 * effect).all()
    # Most prompts of one token have no such number.
    same = (found[0] - rounded[0]).norm(dim=1) < 1e-5 * exact[0].norm(dim=1)
    assert same.sum() >= 20


def test_a_table_of_its_own_and_a_shared_one(tmp_path: Path) -> None:
    for tied in (True, False):
        model = model_of(tie_word_embeddings=tied, vocab_size=2048)
        write_gguf(tmp_path / "model.gguf", model, "Q8_0")
        loaded = load(tmp_path / "model.gguf")
        *_, head = products(loaded) if tied else products(loaded)[:-1]
        assert head.n_out == 2048
        assert isinstance(table(loaded), QuantizedCpuLinear)
        assert (table(loaded) is head) == tied
        # As the decoder counts it: tables of cosines and sines, which no file has, aside.
        runner = loaded._runner
        assert runner is not None
        ropes = 2 * 4 * 1024 * WIDE["head_dim"] // 2
        size = (tmp_path / "model.gguf").stat().st_size
        assert runner.decoder.weight_bytes() - ropes <= 1.02 * size


def bits(model: LoadedModel) -> list[bytes]:
    return [logits for *_, logits in run(model, [[5, 9, 77, 30], list(range(60, 90))], PARAMS)]


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K", "Q5_0"])
def test_floats_are_those_of_a_model_that_holds_them(kind: str, tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", model_of(), kind)
    with_rounded_matrices(model_of(), kind, {}).save_pretrained(tmp_path / "floats")
    expected = bits(load(tmp_path / "floats"))
    for dtype in ("float32", "bfloat16"):
        expected = bits(load(tmp_path / "floats", dtype=dtype))
        assert bits(load(tmp_path / "floats", dtype=dtype, weights="float")) == expected
        assert bits(load(tmp_path / "model.gguf", dtype=dtype, weights="float")) == expected


@pytest.mark.parametrize(("weights", "kind"), [("int8", "Q8_0"), ("int4", "Q4_0")])
def test_floats_are_quantised_to_the_blocks_of_a_file(
    weights: str, kind: str, tmp_path: Path
) -> None:
    model_of().save_pretrained(tmp_path / "floats")
    write_gguf(tmp_path / "same.gguf", model_of(), kind)
    expected = bits(load(tmp_path / "same.gguf"))
    assert bits(load(tmp_path / "floats", weights=weights)) == expected
    assert bits(load(tmp_path / "same.gguf", weights=weights)) == expected
    # A file of other blocks: these are widened first.
    write_gguf(tmp_path / "other.gguf", model_of(), "Q6_K")
    with_rounded_matrices(model_of(), "Q6_K", {}).save_pretrained(tmp_path / "widened")
    assert bits(load(tmp_path / "other.gguf", weights=weights)) == bits(
        load(tmp_path / "widened", weights=weights)
    )


def test_products_without_a_kernel_have_floats(tmp_path: Path) -> None:
    kinds = {"attn_v": "Q5_0", "ffn_down": "F16", "token_embd": "BF16"}
    write_gguf(tmp_path / "model.gguf", model_of(), "Q4_K", kinds=kinds)
    model = load(tmp_path / "model.gguf")
    packed = [CpuLinear, QuantizedCpuLinear, QuantizedCpuLinear, CpuLinear]
    assert [type(product) for product in products(model)] == 3 * packed + [QuantizedCpuLinear]
    assert isinstance(table(model), torch.Tensor)
    floats = logits_of(load(tmp_path / "model.gguf", weights="float"), [[5, 9, 77]])
    difference = (logits_of(model, [[5, 9, 77]]) - floats).norm()
    assert 0 < difference < 0.05 * floats.norm()


def test_widths_that_are_no_blocks_have_floats(tmp_path: Path) -> None:
    model_of(hidden_size=48, head_dim=24).save_pretrained(tmp_path)
    layer = [CpuLinear, QuantizedCpuLinear, CpuLinear, QuantizedCpuLinear]
    found = products(load(tmp_path, weights="int4"))
    assert [type(product) for product in found] == 3 * layer + [CpuLinear]


def test_libraries_products_are_for_floats_alone(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", model_of(), "Q4_1")
    free = load(tmp_path / "model.gguf", deterministic=False)
    assert bits(free) == bits(load(tmp_path / "model.gguf"))


ADAPTED = ["self_attn.q_proj", "mlp.down_proj"]


def adapter(folder: Path, seed: int) -> Path:
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file(matrices(seed), folder / "adapter_model.safetensors")
    return folder


def matrices(seed: int) -> dict[str, torch.Tensor]:
    random, found = torch.Generator().manual_seed(seed), {}
    for name, weight in model_of("Qwen3").named_parameters():
        module = name.removesuffix(".weight")
        if module.endswith(tuple(ADAPTED)):
            n_out, n_in = weight.shape
            for part, shape in (("A", (4, n_in)), ("B", (n_out, 4))):
                found[f"base_model.model.{module}.lora_{part}.weight"] = 0.1 * torch.randn(
                    shape, generator=random
                )
    return found


def merged(kind: str, seed: int) -> Any:
    """The model with the adapter in its matrices, and these as the file has them."""
    model, parts = with_rounded_matrices(model_of("Qwen3"), kind, {}), matrices(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            a = parts.get(f"base_model.model.{name.replace('.weight', '.lora_A.weight')}")
            b = parts.get(f"base_model.model.{name.replace('.weight', '.lora_B.weight')}")
            if a is not None and b is not None:
                weight += b @ a * (8 / 4)
    return model


def test_what_an_adapter_changes_has_bytes(tmp_path: Path) -> None:
    path, kinds = tmp_path / "model.gguf", {"attn_q.": "Q8_0", "ffn_down": "Q8_0"}
    write_gguf(path, model_of("Qwen3"), "Q4_1")
    expected = []
    for seed in (0, 1):
        name = tmp_path / f"merged-{seed}.gguf"
        write_gguf(name, merged_parts(seed), "Q4_1", kinds=kinds)
        expected.append(bits(load(name)))
    model = load(path, adapter(tmp_path / "first", 0))
    assert bits(model) == expected[0] != expected[1] != bits(load(path))
    model.update_weights(matrices(1))
    assert bits(model) == expected[1]
    for _ in range(2):
        model.sleep(drop_weights=True)
        model.wake()
        assert bits(model) == expected[1]
    model.update_weights(tmp_path / "first")
    assert bits(model) == expected[0]
    model.sleep()
    model.wake()
    assert bits(model) == expected[0]


def test_an_adapter_in_floats(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", model_of("Qwen3"), "Q4_1")
    merged("Q4_1", 0).save_pretrained(tmp_path / "merged")
    floats = load(tmp_path / "model.gguf", adapter(tmp_path / "first", 0), weights="float")
    assert bits(floats) == bits(load(tmp_path / "merged"))
    integers = load(tmp_path / "model.gguf", tmp_path / "first", weights="int8")
    assert bits(integers) == bits(load(tmp_path / "merged", weights="int8"))


def merged_parts(seed: int) -> Any:
    """As `merged`, with the other matrices as they were before a file had them."""
    model, own = merged("Q4_1", seed), dict(model_of("Qwen3").named_parameters())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not name.removesuffix(".weight").endswith(tuple(ADAPTED)):
                weight.copy_(own[name])
    return model


def test_new_weights_go_where_the_old_ones_were(tmp_path: Path) -> None:
    model_of("Qwen3").save_pretrained(tmp_path / "floats")
    write_gguf(tmp_path / "model.gguf", model_of("Qwen3"), "Q4_K", kinds=MIXED)
    write_gguf(tmp_path / "new.gguf", model_of("Qwen3"), "Q4_0")
    model = load(tmp_path / "model.gguf")
    before = bits(model)
    model.update_weights(model_of("Qwen3").state_dict())
    assert bits(model) == bits(load(tmp_path / "floats", weights="int8")) != before
    model.update_weights(tmp_path / "new.gguf")
    assert bits(model) == bits(load(tmp_path / "new.gguf"))
    model.update_weights(tmp_path / "model.gguf")
    assert bits(model) == before


def test_numbers_that_cannot_be_quantised(tmp_path: Path) -> None:
    broken = model_of("Qwen3")
    broken.model.layers[1].mlp.up_proj.weight.data[3, 5] = float("nan")
    broken.save_pretrained(tmp_path)
    message = r"layers\.1\.mlp\.up_proj\.weight: a weight of nan cannot be quantised"
    with pytest.raises(ModelLoadError, match=message):
        load(tmp_path, weights="int4")


def test_values_that_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match="unknown weights 'int3'; use one of: float, int8, int4"):
        EngineOptions(weights="int3")
    for weights in ("int8", "int4"):
        message = f"weights='{weights}' is for the CPU, not for cuda: set device='cpu', or"
        with pytest.raises(ConfigError, match=message):
            _ops(torch.device("cuda"), EngineOptions(weights=weights))
    with pytest.raises(ConfigError, match="transformers backend has no option 'weights', .*'int8'"):
        FlipReward(weights="int8", backend="transformers")
