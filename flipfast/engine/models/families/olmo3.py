"""OLMo 3: an OLMo 2 with sliding windows, and a separate rope table for each kind of layer."""

from collections.abc import Mapping
from typing import Any

from transformers import Olmo3Config

from flipfast.engine.models.families._config import (
    POST_NORMS,
    decoder_spec,
    layer_types,
    read_config,
)
from flipfast.engine.models.spec import DecoderSpec

ARCHITECTURES = ("Olmo3ForCausalLM",)


def spec(config: Mapping[str, Any]) -> DecoderSpec:
    """The decoder of an OLMo 3."""
    c = read_config(Olmo3Config, config)
    return decoder_spec(
        c,
        layer_types(c),
        rope_by_type=True,
        norm_names=POST_NORMS,
        qk_norm="full",
        qkv_bias=bool(c.attention_bias),
        output_bias=bool(c.attention_bias),
    )
