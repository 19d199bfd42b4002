"""LoRA adapters against peft's own merging, and updates of them in a loaded engine."""

from __future__ import annotations

import copy
import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from flipfast import FlipReward
from flipfast.engine.lifecycle import LoadedModel
from flipfast.engine.loading import load_engine
from flipfast.engine.models.checkpoint import read_model
from flipfast.engine.models.lora import AdaptedCheckpoint, read_adapter
from flipfast.engine.options import EngineOptions
from flipfast.engine.sampling import SamplingParams
from flipfast.engine.sequence import Sequence
from flipfast.errors import ConfigError, FlipfastError, ModelLoadError
from tests.engine.models.gguf_files import write_gguf
from tests.engine.models.paged import SHAPE, Paged, build_decoder, random_model

peft = pytest.importorskip("peft", reason="peft is not installed")

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES: dict[str, dict[str, Any]] = {
    "all products": {"target_modules": ALL},
    "an expression": {"target_modules": r".*layers\.[02]\..*(q|v|down)_proj"},
    "two layers": {"target_modules": ["q_proj"], "layers_to_transform": [0, 2]},
    "rank and alpha patterns": {
        "target_modules": ALL,
        "rank_pattern": {"layers.1.mlp.up_proj": 9, "k_proj": 3},
        "alpha_pattern": {"model.layers.0.self_attn.q_proj": 40, "down_proj": 1},
    },
    "rslora": {"target_modules": ALL, "use_rslora": True},
    "dora": {"target_modules": ALL, "use_dora": True},
    "dora and rslora": {"target_modules": ["o_proj"], "use_dora": True, "use_rslora": True},
    "all linear": {"target_modules": "all-linear", "exclude_modules": ["o_proj"]},
    "the head": {"target_modules": ["lm_head", "v_proj"]},
    "a head of its own": {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]},
}


def adapted(folder: Path, case: str, seed: int = 0) -> Any:
    """A random model in peft, with an adapter that does something; saved in two folders."""
    model = random_model(transformers.Qwen3Config(**SHAPE))
    model.save_pretrained(folder / "model")
    config = peft.LoraConfig(**{"r": 6, "lora_alpha": 10, **CASES[case]}, task_type="CAUSAL_LM")
    with_adapter = peft.get_peft_model(model, config)
    randomise(with_adapter, seed)
    with_adapter.save_pretrained(folder / "adapter")
    return with_adapter


def randomise(model: Any, seed: int, std: float = 0.2) -> None:
    random = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_magnitude" in name:
            weight.data *= 1 + 0.3 * torch.rand(weight.shape, generator=random)
        elif "lora_" in name or "modules_to_save" in name:
            weight.data.normal_(std=std, generator=random)


def assert_merged(found: dict[str, torch.Tensor], model: Any) -> None:
    expected = model.merge_and_unload().state_dict()
    assert set(found) - set(expected) == set()
    for name, weight in found.items():
        wanted = expected[name]
        assert (weight - wanted).norm() <= 1e-6 * wanted.norm(), name


@pytest.mark.parametrize("case", CASES)
def test_merged_as_peft_does(case: str, tmp_path: Path) -> None:
    model = adapted(tmp_path, case)
    _, base = read_model(str(tmp_path / "model"))
    found = AdaptedCheckpoint(base, read_adapter(str(tmp_path / "adapter")))
    weights = dict(found.tensors())
    changed = sum(not torch.equal(w, weights[name]) for name, w in base.tensors())
    assert changed == len(found.adapter.modules) > 0
    assert_merged(weights, model)


@pytest.mark.parametrize("head_in_file", [False, True])
@pytest.mark.parametrize(
    "adapts",
    [
        {"target_modules": ["lm_head", "v_proj"]},
        {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"]},
        {"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["v_proj"]},
        {
            "target_modules": ["v_proj"],
            "modules_to_save": ["embed_tokens"],
            "ensure_weight_tying": True,
        },
    ],
)
def test_a_tied_model(adapts: dict[str, Any], head_in_file: bool, tmp_path: Path) -> None:
    """As with the adapter beside it: merging, peft adds to both what it has learnt for one."""
    model = random_model(transformers.Qwen3Config(**SHAPE, tie_word_embeddings=True))
    model.save_pretrained(tmp_path / "model")
    if head_in_file:
        file = tmp_path / "model/model.safetensors"
        table = model.model.embed_tokens.weight.detach().clone()
        save_file({**load_file(file), "lm_head.weight": table}, file, metadata={"format": "pt"})
    with_adapter = peft.get_peft_model(model, peft.LoraConfig(r=4, task_type="CAUSAL_LM", **adapts))
    randomise(with_adapter, 0)
    with_adapter.save_pretrained(tmp_path / "adapter")
    ids = list(range(3, 20))
    with torch.no_grad():
        expected = with_adapter(torch.tensor([ids])).logits[0]
    spec, base = read_model(str(tmp_path / "model"))
    decoder = build_decoder(spec, base)
    adapted = AdaptedCheckpoint(base, read_adapter(str(tmp_path / "adapter")))
    decoder.load(adapted.tensors(), adapted.source)
    logits = Paged(decoder, 1).step([(0, ids)], all_rows=True)
    assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_on_a_gguf_file(tmp_path: Path) -> None:
    model = random_model(transformers.LlamaConfig(**SHAPE))
    write_gguf(tmp_path / "model.gguf", model)
    config = peft.LoraConfig(r=4, target_modules=ALL, task_type="CAUSAL_LM")
    with_adapter = peft.get_peft_model(model, config)
    randomise(with_adapter, 0)
    with_adapter.save_pretrained(tmp_path / "adapter")
    _, base = read_model(str(tmp_path / "model.gguf"))
    found = AdaptedCheckpoint(base, read_adapter(str(tmp_path / "adapter")))
    full = {n: n if n == "lm_head.weight" else f"model.{n}" for n, _ in base.tensors()}
    assert_merged({full[name]: weight for name, weight in found.tensors()}, with_adapter)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA"),
    ({"bias": "all"}, "bias='all' cannot be merged"),
    ({"trainable_token_indices": [3]}, r"trainable_token_indices=\[3\] cannot be merged"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' cannot"),
    ({"fan_in_fan_out": True}, "fan_in_fan_out=True cannot"),
    ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
    ({"lora_bias": True}, "lora_bias=True"),
    ({"something_new": 7}, "something_new=7"),
    ({"lora_alpha": None}, "lora_alpha is None"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_cannot_be_merged_is_refused_by_name(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    adapted(tmp_path, "all products")
    path = tmp_path / "adapter/adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelLoadError, match=message) as caught:
        read_adapter(str(tmp_path / "adapter"))
    assert "adapter_config.json" in str(caught.value)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    adapted(tmp_path, "all products")
    path = tmp_path / "adapter/adapter_model.safetensors"
    weights = load_file(path)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"

    def refusal(changed: dict[str, torch.Tensor]) -> str:
        save_file(changed, path)
        _, base = read_model(str(tmp_path / "model"))
        with pytest.raises(ModelLoadError) as caught:
            dict(AdaptedCheckpoint(base, read_adapter(str(tmp_path / "adapter"))).tensors())
        return str(caught.value)

    other = name.replace("layers.0", "layers.7")
    b = weights[name.replace("_A", "_B")]
    both = {other: weights[name].clone(), other.replace("_A", "_B"): b.clone()}
    assert "the first is layers.7.self_attn.q_proj" in refusal({**weights, **both})
    assert "is for a weight of (96, 63)" in refusal({**weights, name: weights[name][:, 1:].clone()})
    assert "do not belong together" in refusal({**weights, name: weights[name][1:].clone()})
    assert "lora_embedding_A cannot be merged" in refusal(
        {**weights, "base_model.model.model.embed_tokens.lora_embedding_A": b.clone()}
    )
    path.write_bytes(b"no")
    with pytest.raises(ModelLoadError, match="truncated, or no safetensors"):
        read_adapter(str(tmp_path / "adapter"))
    path.unlink()
    with pytest.raises(ModelLoadError, match="has no adapter_model"):
        read_adapter(str(tmp_path / "adapter"))


def load(folder: Path, adapter: Path | None = None) -> LoadedModel:
    spec, checkpoint = read_model(str(folder))
    if adapter is not None:
        checkpoint = AdaptedCheckpoint(checkpoint, read_adapter(str(adapter)))
    options = EngineOptions(device="cpu", dtype="float32", memory=2**26)
    return load_engine(spec, checkpoint, options, end_ids=frozenset())


def greedy(model: LoadedModel) -> list[int]:
    sequence = Sequence([5, 9, 77, 30], SamplingParams(max_new_tokens=12), seed=0)
    model.engine.generate([sequence])
    return sequence.output_ids


def merged(folder: Path, model: Any) -> Path:
    """A folder with the base and the adapter as peft merges them; the model stays as it is."""
    copy.deepcopy(model).merge_and_unload().save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_an_update_takes_the_last_adapter_out(tmp_path: Path) -> None:
    trained = adapted(tmp_path, "all products")
    base, adapter = tmp_path / "model", tmp_path / "adapter"
    loaded = load(base, adapter)
    first = greedy(loaded)
    assert first == greedy(load(merged(tmp_path / "one", trained)))
    randomise(trained, seed=1)
    state = {n: w for n, w in trained.state_dict().items() if "lora_" in n}  # as trainers send it
    loaded.update_weights(state)
    second = greedy(loaded)
    assert second != first
    assert second == greedy(load(merged(tmp_path / "two", trained)))
    loaded.sleep(drop_weights=True)
    loaded.wake()
    assert greedy(loaded) == second
    loaded.update_weights(adapter)
    assert greedy(loaded) == first
    plain = load(base)
    loaded.update_weights(dict(read_model(str(base))[1].tensors()))
    assert greedy(loaded) == greedy(plain) != first
    with pytest.raises(FlipfastError, match="send the whole state dict"):
        loaded.update_weights(state)
    with pytest.raises(FlipfastError, match="was loaded without one"):
        plain.update_weights(state)


@pytest.mark.slow
def test_by_the_reward(tmp_path: Path) -> None:
    """The option, on the embedded model; a backend that has no adapters says so."""
    embedded = str(resources.files("flipfast") / "assets" / "tiny-inverter")
    model = transformers.AutoModelForCausalLM.from_pretrained(embedded, dtype=torch.float32)
    config = peft.LoraConfig(r=4, target_modules=ALL, task_type="CAUSAL_LM")
    with_adapter = peft.get_peft_model(model, config)
    randomise(with_adapter, 0, std=0.05)
    with_adapter.save_pretrained(tmp_path / "adapter")
    with_adapter.merge_and_unload().save_pretrained(tmp_path / "whole")
    for file in [*Path(embedded).glob("*token*"), *Path(embedded).glob("*.jinja")]:
        shutil.copy(file, tmp_path / "whole")
    options = {"dtype": "float32"}  # the model's own style and length stay
    texts = ["Name a river."], ["The Ebro flows to the sea."]
    with FlipReward(adapter=str(tmp_path / "adapter"), **options) as reward:
        adapted = reward.score(*texts)
        inferred = list(adapted.inferred)
    with FlipReward(str(tmp_path / "whole"), **options) as reward:
        whole = reward.score(*texts)
        assert list(whole.inferred) == inferred != [""]
    assert whole.n_prompt_tokens == adapted.n_prompt_tokens
    with pytest.raises(ConfigError, match="transformers backend has no option 'adapter'"):
        FlipReward(adapter=str(tmp_path / "adapter"), backend="transformers")
