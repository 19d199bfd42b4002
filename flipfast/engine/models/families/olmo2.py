"""OLMo 2: norms after each block, and over all heads of queries and keys."""

from collections.abc import Mapping
from typing import Any

from transformers import Olmo2Config

from flipfast.engine.models.families._config import (
    POST_NORMS,
    decoder_spec,
    layer_types,
    read_config,
)
from flipfast.engine.models.spec import DecoderSpec

ARCHITECTURES = ("Olmo2ForCausalLM",)


def spec(config: Mapping[str, Any]) -> DecoderSpec:
    """The decoder of an OLMo 2."""
    c = read_config(Olmo2Config, config)
    return decoder_spec(
        c,
        layer_types(c),
        norm_names=POST_NORMS,
        qk_norm="full",
        qkv_bias=bool(c.attention_bias),
        output_bias=bool(c.attention_bias),
    )
