"""Decoder-only language models: one decoder, one small file per family, and checkpoints."""

from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.engine.models.spec import DecoderSpec, LayerSpec, RopeSpec

__all__ = ["DecoderSpec", "LayerSpec", "RopeSpec", "UnsupportedModelError"]
