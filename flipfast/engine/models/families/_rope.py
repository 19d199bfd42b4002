"""Rotary frequencies of a configuration; scaled ones use transformers' own functions."""

from __future__ import annotations

from typing import Any

import torch

from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.engine.models.spec import RopeSpec
from flipfast.errors import ModelLoadError

FULL, SLIDING = "full_attention", "sliding_attention"

_SCALED = ("linear", "llama3", "yarn")


def rope_spec(c: Any, head_dim: int, layer_type: str | None) -> RopeSpec:
    """Frequencies and attention factor as transformers computes them, bit for bit.

    Args:
        c: a transformers configuration.
        head_dim: numbers per head.
        layer_type: FULL or SLIDING if these have their own parameters, else None.

    Raises:
        UnsupportedModelError: a type other than default, linear, llama3 and yarn, or a rotation
            of only part of each head.
        ModelLoadError: a parameter is missing or invalid.
    """
    parameters = c.rope_parameters
    if layer_type in parameters:
        parameters = parameters[layer_type]
    elif layer_type == SLIDING:  # transformers < 5.13: OLMo 3's only table is for full attention
        parameters = {"rope_theta": parameters.get("rope_theta")}
    else:
        layer_type = None
    kind = parameters.get("rope_type", "default")
    if kind != "default" and kind not in _SCALED:
        raise UnsupportedModelError(f"rope_type: {kind!r} is not served here")
    if parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise UnsupportedModelError("partial_rotary_factor: only whole heads are rotated here")
    try:
        if kind == "default":
            frequencies, factor = _default(parameters["rope_theta"], head_dim), 1.0
        else:
            frequencies, factor = _scaled(kind, c, layer_type)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelLoadError(
            f"rope_parameters of type {kind!r}: {type(error).__name__} {error} in {parameters}"
        ) from error
    return RopeSpec(tuple(frequencies.tolist()), float(factor))


def _default(theta: float, head_dim: int) -> torch.Tensor:
    frequencies: torch.Tensor = 1.0 / (theta ** (torch.arange(0, head_dim, 2).float() / head_dim))
    return frequencies


def _scaled(kind: str, c: Any, layer_type: str | None) -> tuple[torch.Tensor, float]:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    cpu = torch.device("cpu")
    frequencies, factor = ROPE_INIT_FUNCTIONS[kind](c, cpu, layer_type=layer_type)
    return frequencies, factor
