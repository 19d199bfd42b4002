"""The least that a model's passes must move and compute, from its shape."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flipfast.engine.models.spec import DecoderSpec
from flipfast.profiling.recorder import Cost


@dataclass(frozen=True)
class Pass:
    """What one pass of a model runs.

    Attributes:
        chunks: (known, new) tokens of each sequence: those in the cache, and those that it runs.
        n_heads: rows whose logits are computed.
    """

    chunks: list[tuple[int, int]]
    n_heads: int


def floor(
    spec: DecoderSpec, passes: Iterable[Pass], *, weight_bytes: int, cache_bytes: int
) -> Cost:
    """Every weight once a pass, every key and value once a pass and sequence; products, attention.

    Norms, rotations and activations are left out: they are small, and can stay in registers.

    Args:
        spec: of the model; windows of attention are not heeded.
        passes: that are made.
        weight_bytes, cache_bytes: of a number.
    """
    heads, kv, size = spec.n_heads, spec.n_kv_heads, spec.head_dim
    attention = (2 * heads + 2 * kv) * size
    layers = len(spec.layers) * spec.hidden_size * (attention + 3 * spec.intermediate_size)
    head = spec.hidden_size * spec.vocab_size
    key_bytes = 2 * len(spec.layers) * kv * size * cache_bytes
    n_bytes = flops = 0.0
    for one in passes:
        keys = sum(known + new for known, new in one.chunks)
        pairs = sum(new * known + new * (new + 1) // 2 for known, new in one.chunks)
        rows = sum(new for _, new in one.chunks)
        n_bytes += (layers + head) * weight_bytes + keys * key_bytes
        flops += 2.0 * (layers * rows + head * one.n_heads)
        flops += 4.0 * len(spec.layers) * heads * size * pairs
    return Cost(n_bytes, flops)
