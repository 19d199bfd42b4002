"""The specification of a decoder, as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class LayerSpec:
    """Settings of one layer.

    Attributes:
        window: number of positions that a query sees, its own included; None for all.
        rope: name of the model's rope table that it uses; None for no rotation.
    """

    window: int | None
    rope: str | None


@dataclass(frozen=True)
class RopeSpec:
    """Frequencies of one rope table.

    Attributes:
        inv_freq: radians per position, one for each pair of dimensions, with all scaling applied.
        attention_factor: multiplies cosines and sines.
    """

    inv_freq: tuple[float, ...]
    attention_factor: float = 1.0


@dataclass(frozen=True)
class DecoderSpec:
    """A decoder-only transformer with rotary embeddings and a gated MLP.

    Attributes:
        vocab_size: rows of the embedding.
        hidden_size: numbers per token between layers.
        intermediate_size: numbers per token inside the MLP.
        n_heads, n_kv_heads, head_dim: of attention.
        max_positions: context length.
        layers: one entry per layer.
        ropes: rope tables by the names that layers use.
        norm_eps: epsilon of every norm.
        norm_offset: added to every norm weight (1 in Gemma).
        norm_names: maps the layer norms that the family has ("pre_attention", "post_attention",
            "pre_mlp", "post_mlp") to the checkpoint's names. A post norm is applied to a block's
            output before it is added to the residual.
        qk_norm: None, "head" (one norm per head) or "full" (one over all heads).
        qkv_bias, output_bias, mlp_bias: which products have a bias.
        activation: of the gate, "silu" or "gelu_tanh".
        embed_scale: multiplies embeddings.
        attention_scale: multiplies q.k.
        attention_softcap, logit_softcap: caps, or None.
        tied: whether the LM head uses the embedding's weight, unless the checkpoint has another.
        foreign: name prefixes of tensors that belong to other parts of the checkpoint, such as a
            vision tower.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    max_positions: int
    layers: tuple[LayerSpec, ...]
    ropes: Mapping[str, RopeSpec]
    norm_eps: float
    norm_names: Mapping[str, str]
    norm_offset: float = 0.0
    qk_norm: str | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    activation: str = "silu"
    embed_scale: float = 1.0
    attention_scale: float = 1.0
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    tied: bool = False
    foreign: tuple[str, ...] = ()
