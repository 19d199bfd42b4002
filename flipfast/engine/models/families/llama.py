"""Llama 2 and 3."""

from collections.abc import Mapping
from typing import Any

from transformers import LlamaConfig

from flipfast.engine.models.families._config import decoder_spec, layer_types, read_config
from flipfast.engine.models.spec import DecoderSpec

ARCHITECTURES = ("LlamaForCausalLM",)


def spec(config: Mapping[str, Any]) -> DecoderSpec:
    """The decoder of a Llama."""
    c = read_config(LlamaConfig, config)
    return decoder_spec(
        c,
        layer_types(c),
        qkv_bias=bool(c.attention_bias),
        output_bias=bool(c.attention_bias),
        mlp_bias=bool(c.mlp_bias),
    )
