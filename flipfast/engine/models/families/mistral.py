"""Mistral: a Llama whose layers may all have a sliding window."""

from collections.abc import Mapping
from typing import Any

from transformers import MistralConfig

from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.engine.models.families._config import decoder_spec, positive, read_config
from flipfast.engine.models.families._rope import FULL, SLIDING
from flipfast.engine.models.spec import DecoderSpec

ARCHITECTURES = ("MistralForCausalLM",)


def spec(config: Mapping[str, Any]) -> DecoderSpec:
    """The decoder of a Mistral."""
    if config.get("layer_types") is not None:  # transformers' Mistral ignores the field
        raise UnsupportedModelError("layer_types: a Mistral has one kind of layer only")
    c = read_config(MistralConfig, config)
    kind = FULL if c.sliding_window is None else SLIDING
    return decoder_spec(c, [kind] * positive(c, "num_hidden_layers"))
