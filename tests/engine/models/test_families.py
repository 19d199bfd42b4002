"""From config.json to a specification: both forms of the fields, refusals, broken fields."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import torch
import transformers

from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.engine.models.families import available_families, read_spec
from flipfast.errors import ModelLoadError
from tests.engine.models.paged import SHAPE


def saved(family: str, **own: Any) -> dict[str, Any]:
    """The contents of a config.json that transformers writes."""
    config_class = getattr(transformers, f"{family}Config")
    name = family.removesuffix("Text") + "ForCausalLM"
    text = config_class(**{**SHAPE, "architectures": [name], **own}).to_json_string()
    content: dict[str, Any] = json.loads(text)
    return content


def old_form(config: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The same with rope fields as they were before transformers 5."""
    return {**{k: v for k, v in config.items() if k != "rope_parameters"}, **fields}


def test_families_are_files() -> None:
    assert available_families() == [
        "gemma3", "llama", "mistral", "olmo2", "olmo3", "qwen2", "qwen3",
    ]  # fmt: skip


def test_only_the_family_asked_for_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    families = {f"flipfast.engine.models.families.{name}" for name in available_families()}
    for name in families:
        monkeypatch.delitem(sys.modules, name, raising=False)
    read_spec(saved("Llama"))
    assert families & set(sys.modules) == {"flipfast.engine.models.families.llama"}


@pytest.mark.parametrize("kind_field", ["type", "rope_type"])
@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3", "Olmo2", "Mistral"])
def test_old_rope_fields(family: str, kind_field: str) -> None:
    scaling = {"factor": 4.0, "original_max_position_embeddings": 256}
    new = saved(family, rope_parameters={"rope_type": "yarn", "rope_theta": 77.0, **scaling})
    old = old_form(new, rope_theta=77.0, rope_scaling={kind_field: "yarn", **scaling})
    assert read_spec(old) == read_spec(new)
    plain = read_spec(old_form(new, rope_theta=77.0, rope_scaling=None))
    assert plain.ropes != read_spec(new).ropes
    expected = 77.0 ** -(torch.arange(12) / 12)
    frequencies = torch.tensor(plain.ropes["full_attention"].inv_freq)
    torch.testing.assert_close(frequencies, expected)


def test_old_rope_fields_of_gemma3() -> None:
    new = saved(
        "Gemma3Text",
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 55.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 77.0, "factor": 8.0},
        },
    )
    old = old_form(
        new,
        rope_theta=77.0,
        rope_local_base_freq=55.0,
        rope_scaling={"rope_type": "linear", "factor": 8.0},
    )
    assert read_spec(old) == read_spec(new)
    assert read_spec(old).ropes.keys() == {"sliding_attention", "full_attention"}


def test_old_rope_fields_of_olmo3() -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    config = old_form(saved("Olmo3"), rope_theta=500000.0, rope_scaling=scaling)
    ropes = read_spec({**config, "layer_types": None, "num_hidden_layers": 4}).ropes
    plain = read_spec(old_form(config, rope_theta=500000.0, rope_scaling=None)).ropes
    assert ropes["sliding_attention"] == plain["sliding_attention"]
    assert ropes["sliding_attention"].attention_factor == 1.0
    assert ropes["full_attention"].attention_factor > 1.0


def test_gemma3_with_images_is_read_as_published() -> None:
    text = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    spec = read_spec({"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text})
    assert (spec.vocab_size, spec.n_heads, spec.n_kv_heads, spec.head_dim) == (262208, 8, 4, 256)
    assert [layer.window for layer in spec.layers[4:7]] == [1024, None, 1024]
    assert spec.tied
    assert spec.embed_scale == 2560**0.5
    assert spec.ropes["full_attention"].inv_freq[0] == 0.125


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [
        ("Llama", "hidden_act", "relu"),
        ("Gemma3Text", "hidden_activation", "gelu"),
        ("Gemma3Text", "use_bidirectional_attention", True),
        ("Llama", "quantization_config", {"quant_method": "awq"}),
        ("Mistral", "layer_types", ["full_attention"] * 3),
        ("Qwen3", "layer_types", ["full_attention", "chunked_attention", "full_attention"]),
        ("Llama", "partial_rotary_factor", 0.5),
    ],
)
def test_a_feature_that_is_not_served(family: str, field: str, value: Any) -> None:
    config = old_form(saved(family), rope_theta=10000.0)
    read_spec(config)
    with pytest.raises(UnsupportedModelError, match=field):
        read_spec({**config, field: value})


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "no-such-type"])
def test_a_rope_type_that_is_not_served(kind: str) -> None:
    rope = {
        "rope_type": kind,
        "factor": 2.0,
        "original_max_position_embeddings": 128,
        "short_factor": [1.0] * 12,
        "long_factor": [1.0] * 12,
    }
    with pytest.raises(UnsupportedModelError, match=f"rope_type.*{kind}"):
        read_spec(old_form(saved("Llama"), rope_scaling=rope))


@pytest.mark.parametrize(
    "name", ["GPT2LMHeadModel", "LlamaForSequenceClassification", "_configForCausalLM", ""]
)
def test_an_unknown_family(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"{name}.*known are: gemma3, llama"):
        read_spec({**saved("Llama"), "architectures": [name]})


@pytest.mark.parametrize("value", [None, [], "LlamaForCausalLM"])
def test_no_architectures(value: object) -> None:
    with pytest.raises(UnsupportedModelError, match="architectures"):
        read_spec({**saved("Llama"), "architectures": value})


@pytest.mark.parametrize("field", ["vocab_size", "hidden_size", "max_position_embeddings"])
@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3", "Olmo2", "Olmo3", "Mistral"])
def test_a_missing_field(family: str, field: str) -> None:
    config = saved(family)
    del config[field]
    with pytest.raises(ModelLoadError, match=f"'{field}' is missing"):
        read_spec(config)


@pytest.mark.parametrize("family", ["Llama", "Olmo2", "Olmo3", "Qwen2", "Qwen3", "Mistral"])
def test_fields_that_old_models_lack(family: str) -> None:
    config = saved(family, num_attention_heads=32)
    del config["num_key_value_heads"], config["head_dim"]
    n_kv_heads = {"Mistral": 8}.get(family, 32)  # transformers' own numbers
    head_dim = {"Qwen3": 128}.get(family, 2)
    assert (read_spec(config).n_kv_heads, read_spec(config).head_dim) == (n_kv_heads, head_dim)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", None),
        ("hidden_size", "many"),
        ("num_hidden_layers", 0),
        ("num_attention_heads", -4),
        ("vocab_size", 1.5),
        ("max_position_embeddings", True),
        ("num_key_value_heads", 3),
        ("head_dim", 23),
        ("layer_types", ["full_attention"]),
    ],
)
def test_a_field_that_makes_no_sense(field: str, value: object) -> None:
    with pytest.raises(ModelLoadError, match=field.replace("_", ".")) as caught:
        read_spec({**saved("Qwen3"), field: value})
    assert not isinstance(caught.value, UnsupportedModelError)


def test_a_window_that_is_missing() -> None:
    types = ["sliding_attention"] * 3
    with pytest.raises(ModelLoadError, match="sliding_window"):
        read_spec({**saved("Olmo3"), "sliding_window": None, "layer_types": types})


@pytest.mark.parametrize("field", ["factor", "low_freq_factor"])
def test_a_rope_parameter_that_is_missing(field: str) -> None:
    rope: dict[str, Any] = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    }
    config = old_form(saved("Llama"), rope_theta=500.0)
    read_spec({**config, "rope_scaling": rope})
    with pytest.raises(ModelLoadError, match=field):
        read_spec({**config, "rope_scaling": {k: v for k, v in rope.items() if k != field}})


def test_the_config_is_not_changed() -> None:
    config = old_form(saved("Llama"), rope_scaling={"type": "linear", "factor": 2.0})
    before = json.dumps(config)
    read_spec(config)
    assert json.dumps(config) == before
