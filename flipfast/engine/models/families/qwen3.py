"""Qwen 3: norms on each head of queries and keys."""

from collections.abc import Mapping
from typing import Any

from transformers import Qwen3Config

from flipfast.engine.models.families._config import decoder_spec, layer_types, read_config
from flipfast.engine.models.spec import DecoderSpec

ARCHITECTURES = ("Qwen3ForCausalLM",)


def spec(config: Mapping[str, Any]) -> DecoderSpec:
    """The decoder of a Qwen 3."""
    c = read_config(Qwen3Config, config)
    return decoder_spec(
        c,
        layer_types(c),
        qk_norm="head",
        qkv_bias=bool(c.attention_bias),
        output_bias=bool(c.attention_bias),
    )
