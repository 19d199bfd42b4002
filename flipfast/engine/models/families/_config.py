"""Converts a config.json to a decoder's specification: the parts shared by all families."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.engine.models.families._rope import FULL, SLIDING, rope_spec
from flipfast.engine.models.fp8 import check_quantization
from flipfast.engine.models.spec import DecoderSpec, LayerSpec
from flipfast.errors import ModelLoadError

PRE_NORMS = {"pre_attention": "input_layernorm", "pre_mlp": "post_attention_layernorm"}
POST_NORMS = {
    "post_attention": "post_attention_layernorm",
    "post_mlp": "post_feedforward_layernorm",
}

_ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
_NEEDED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)


def read_config(
    config_class: Any,
    config: Mapping[str, Any],
    *,
    needed: tuple[str, ...] = _NEEDED,
) -> Any:
    """The fields as transformers reads them: old names renamed, defaults filled in.

    Args:
        config_class: transformers' configuration class of the family.
        config: contents of config.json; not modified.
        needed: required fields, for which no default suits every model.

    Raises:
        ModelLoadError: a needed field is missing, or transformers refuses a value.
        UnsupportedModelError: the weights are quantized in a way that is not served here.
    """
    for field in needed:
        if field not in config:
            raise ModelLoadError(f"the field {field!r} is missing")
    if (asked := config.get("quantization_config")) is not None:
        check_quantization(asked)
    try:
        return config_class.from_dict(deepcopy(dict(config)))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ModelLoadError(f"{type(error).__name__}: {reason}") from error


def layer_types(c: Any) -> list[str]:
    """The kind of attention of each layer.

    Raises:
        ModelLoadError: the list does not have one entry per layer.
        UnsupportedModelError: a kind other than full and sliding attention.
    """
    n_layers = positive(c, "num_hidden_layers")
    types = getattr(c, "layer_types", None)
    if types is None:
        return [FULL] * n_layers
    if len(types) != n_layers:
        raise ModelLoadError(f"layer_types has {len(types)} entries for {n_layers} layers")
    for kind in types:
        if kind not in (FULL, SLIDING):
            raise UnsupportedModelError(f"layer_types: {kind!r} is not served here")
    return list(types)


def decoder_spec(
    c: Any,
    types: list[str],
    *,
    rope_by_type: bool = False,
    activation_field: str = "hidden_act",
    **own: Any,
) -> DecoderSpec:
    """Build a specification from the fields common to all families and the family's own settings.

    Args:
        c: from `read_config`.
        types: the kind of attention of each layer.
        rope_by_type: whether each kind has its own rope table.
        activation_field: name of the field with the MLP's activation.
        own: fields of DecoderSpec that the family sets itself.

    Raises:
        ModelLoadError: a number is missing or invalid.
        UnsupportedModelError: an activation or a rope type that is not supported here.
    """
    hidden_size, n_heads = positive(c, "hidden_size"), positive(c, "num_attention_heads")
    n_kv_heads = positive(c, "num_key_value_heads")
    if n_heads % n_kv_heads:
        raise ModelLoadError(
            f"num_attention_heads {n_heads} is no multiple of num_key_value_heads {n_kv_heads}"
        )
    head_dim = getattr(c, "head_dim", None)
    head_dim = hidden_size // n_heads if head_dim is None else positive(c, "head_dim")
    if head_dim % 2:
        raise ModelLoadError(f"head_dim {head_dim} is odd; rotary embeddings need pairs")
    window = positive(c, "sliding_window") if SLIDING in types else None
    kinds = sorted(set(types)) if rope_by_type else [FULL]
    ropes = {kind: rope_spec(c, head_dim, kind if rope_by_type else None) for kind in kinds}
    layers = tuple(
        LayerSpec(window if kind == SLIDING else None, kind if rope_by_type else FULL)
        for kind in types
    )
    common: dict[str, Any] = {
        "vocab_size": positive(c, "vocab_size"),
        "hidden_size": hidden_size,
        "intermediate_size": positive(c, "intermediate_size"),
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "head_dim": head_dim,
        "max_positions": positive(c, "max_position_embeddings"),
        "layers": layers,
        "ropes": ropes,
        "norm_eps": float(c.rms_norm_eps),
        "norm_names": PRE_NORMS,
        "attention_scale": head_dim**-0.5,
        "activation": _activation(c, activation_field),
        "tied": bool(c.tie_word_embeddings),
    }
    return DecoderSpec(**{**common, **own})


def positive(c: Any, field: str) -> int:
    """A field that must be a positive integer; raises ModelLoadError if it is not."""
    value = getattr(c, field, None)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelLoadError(f"the field {field!r} is {value!r}, not a whole number above 0")
    return value


def _activation(c: Any, field: str) -> str:
    name = getattr(c, field)
    if name not in _ACTIVATIONS:
        raise UnsupportedModelError(f"{field}: {name!r} is not served here")
    return _ACTIVATIONS[name]
