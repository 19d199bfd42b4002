"""Qwen 2 and 2.5: biases on queries, keys and values."""

from collections.abc import Mapping
from typing import Any

from transformers import Qwen2Config

from flipfast.engine.models.families._config import decoder_spec, layer_types, read_config
from flipfast.engine.models.spec import DecoderSpec

ARCHITECTURES = ("Qwen2ForCausalLM",)


def spec(config: Mapping[str, Any]) -> DecoderSpec:
    """The decoder of a Qwen 2."""
    c = read_config(Qwen2Config, config)
    return decoder_spec(c, layer_types(c), qkv_bias=True)
