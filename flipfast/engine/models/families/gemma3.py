"""The text decoder of Gemma 3, alone or as the language model of the multimodal one."""

from collections.abc import Mapping
from typing import Any

from transformers import Gemma3TextConfig

from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.engine.models.families._config import (
    POST_NORMS,
    decoder_spec,
    layer_types,
    positive,
    read_config,
)
from flipfast.engine.models.fp8 import check_quantization
from flipfast.engine.models.spec import DecoderSpec
from flipfast.errors import ModelLoadError

ARCHITECTURES = ("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration")

# Published configurations of the multimodal models leave all other fields at their defaults.
_NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers")
_NORMS = {
    **POST_NORMS,
    "pre_attention": "input_layernorm",
    "pre_mlp": "pre_feedforward_layernorm",
}
_VISION = ("vision_tower.", "multi_modal_projector.")


def spec(config: Mapping[str, Any]) -> DecoderSpec:
    """The decoder of a Gemma 3.

    Ignores attn_logit_softcapping, as transformers does for this family.
    """
    with_images = "text_config" in config
    text = config["text_config"] if with_images else config
    if not isinstance(text, Mapping):
        raise ModelLoadError(f"the field 'text_config' is {text!r}, not a table of fields")
    if (asked := config.get("quantization_config")) is not None:
        check_quantization(asked)
    c = read_config(Gemma3TextConfig, text, needed=_NEEDED)
    if c.use_bidirectional_attention:
        raise UnsupportedModelError("use_bidirectional_attention: only causal models are served")
    cap = c.final_logit_softcapping
    return decoder_spec(
        c,
        layer_types(c),
        rope_by_type=True,
        activation_field="hidden_activation",
        norm_names=_NORMS,
        norm_offset=1.0,
        qk_norm="head",
        qkv_bias=bool(c.attention_bias),
        output_bias=bool(c.attention_bias),
        embed_scale=float(c.hidden_size**0.5),
        attention_scale=positive(c, "query_pre_attn_scalar") ** -0.5,
        logit_softcap=None if cap is None else float(cap),
        tied=bool(config.get("tie_word_embeddings", c.tie_word_embeddings)),
        foreign=_VISION if with_images else (),
    )
