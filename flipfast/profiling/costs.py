"""Bytes moved and operations of the decoder's parts, computed from the shapes of a call.

Bytes count once each number that must be read or written; an addition, a multiplication, a root or
an exponential counts as one operation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from flipfast.engine.attention.base import AttentionBackend, AttentionMetadata, LayerCache
from flipfast.engine.ops.base import Linear, RopeTable, Table
from flipfast.profiling.recorder import Cost, LazyCost

Formula = Callable[..., LazyCost]


def product(linear: Linear, x: torch.Tensor, out: torch.Tensor) -> Cost:
    """Return the cost of x @ weight.T + bias."""
    return Cost(_weight_bytes(linear, x) + x.nbytes + out.nbytes, 2.0 * x.numel() * linear.n_out)


def attend(
    backend: AttentionBackend,
    query: torch.Tensor,
    cache: LayerCache,
    metadata: AttentionMetadata,
    out: torch.Tensor,
    *,
    window: int | None = None,
    **_: Any,
) -> Callable[[], Cost]:
    """Return the cost of attention: visible keys and values once, scores, weighted values."""
    moved = query.nbytes + out.nbytes
    shape, size = backend.shape, cache[0].element_size()

    def cost() -> Cost:
        starts, lengths = metadata.cu_seqlens_q.tolist(), metadata.seq_lens.tolist()
        keys = pairs = 0
        for i, length in enumerate(lengths):
            queries = starts[i + 1] - starts[i]
            seen, shared = _seen(length, queries, window)
            pairs += seen
            keys += shared
        kv = 2 * keys * shape.n_kv_heads * shape.head_dim * size
        return Cost(moved + kv, 4.0 * pairs * shape.n_heads * shape.head_dim)

    return cost


def write(
    _: Any,
    key: torch.Tensor,
    value: torch.Tensor,
    cache: LayerCache,
    slot_mapping: torch.Tensor,
) -> Cost:
    """Return the cost of reading keys and values and writing them to their pages."""
    stored = 2 * key.numel() * cache[0].element_size()
    return Cost(key.nbytes + value.nbytes + slot_mapping.nbytes + stored, 0)


def _embed(_: Any, ids: torch.Tensor, table: Table, scale: float, out: torch.Tensor) -> Cost:
    n_rows = table.n_out if isinstance(table, Linear) else len(table)
    rows = table.nbytes / n_rows * len(ids)
    return Cost(ids.nbytes + rows + out.nbytes, out.numel() if scale != 1.0 else 0)


def _rms_norm(_: Any, x: torch.Tensor, weight: torch.Tensor, eps: float, out: torch.Tensor) -> Cost:
    return Cost(x.nbytes + weight.nbytes + out.nbytes, 4.0 * x.numel())


def _add_rms_norm(
    _: Any,
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    out: torch.Tensor,
) -> Cost:
    return Cost(x.nbytes + 2 * residual.nbytes + weight.nbytes + out.nbytes, 5.0 * x.numel())


def _add(_: Any, x: torch.Tensor, residual: torch.Tensor) -> Cost:
    return Cost(x.nbytes + 2 * residual.nbytes, x.numel())


def _norm_rope(
    _: Any,
    x: torch.Tensor,
    positions: torch.Tensor,
    rope: RopeTable | None,
    weight: torch.Tensor | None,
    eps: float,
) -> Cost:
    rotation, norm = _rope_work(positions, rope), _norm_work(x, weight)
    return Cost(
        2.0 * x.nbytes + rotation.n_bytes + norm.n_bytes,
        rotation.flops * x.shape[1] + norm.flops,
    )


def _norm_rope_write(
    _: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    positions: torch.Tensor,
    rope: RopeTable | None,
    query_weight: torch.Tensor | None,
    key_weight: torch.Tensor | None,
    eps: float,
    store: Any,
    cache: LayerCache,
    slot_mapping: torch.Tensor,
) -> Cost:
    rotation = _rope_work(positions, rope)
    norms = [_norm_work(query, query_weight), _norm_work(key, key_weight)]
    written = write(store, key, value, cache, slot_mapping)
    n_bytes = 2.0 * query.nbytes + written.n_bytes + rotation.n_bytes
    flops = rotation.flops * (query.shape[1] + key.shape[1])
    return Cost(
        n_bytes + sum(norm.n_bytes for norm in norms), flops + sum(norm.flops for norm in norms)
    )


def _gated(_: Any, gate_up: torch.Tensor, activation: str, out: torch.Tensor) -> Cost:
    return Cost(gate_up.nbytes + out.nbytes, 5.0 * out.numel())


def _argmax(_: Any, logits: torch.Tensor) -> Cost:
    return Cost(logits.nbytes + 8 * len(logits), logits.numel())


def _log_prob(_: Any, logits: torch.Tensor, best: torch.Tensor, targets: torch.Tensor) -> Cost:
    return Cost(logits.nbytes + best.nbytes + targets.nbytes + 4 * len(best), 3 * logits.numel())


def _fused_argmax(_: Any, head: Linear, x: torch.Tensor, softcap: float | None) -> Cost:
    return Cost(_weight_bytes(head, x) + x.nbytes + 8 * len(x), 2.0 * x.numel() * head.n_out)


def _fused_log_prob(
    _: Any, head: Linear, x: torch.Tensor, targets: torch.Tensor, softcap: float | None
) -> Cost:
    # The log-sum-exp takes three operations per logit.
    n_bytes = _weight_bytes(head, x) + x.nbytes + targets.nbytes + 12 * len(x)
    return Cost(n_bytes, (2.0 * x.shape[1] + 3.0) * len(x) * head.n_out)


# By the operation's name. One that is missing here is timed, but its work stays unknown.
OPS: dict[str, Formula] = {
    "embed": _embed,
    "rms_norm": _rms_norm,
    "add_rms_norm": _add_rms_norm,
    "add": _add,
    "norm_rope": _norm_rope,
    "norm_rope_write": _norm_rope_write,
    "gated": _gated,
    "argmax": _argmax,
    "log_prob": _log_prob,
    "fused_argmax": _fused_argmax,
    "fused_log_prob": _fused_log_prob,
}


def _weight_bytes(linear: Linear, x: torch.Tensor) -> float:
    stored = getattr(linear, "nbytes", None)
    if stored is not None:  # packed
        return float(stored)
    weight, bias = getattr(linear, "weight", None), getattr(linear, "bias", None)
    if weight is None:
        return float(linear.n_out * linear.n_in * x.element_size())
    return float(weight.nbytes + (0 if bias is None else bias.nbytes))


def _norm_work(x: torch.Tensor, weight: torch.Tensor | None) -> Cost:
    """Return the cost of the norm, without reading and writing x."""
    return Cost(0, 0) if weight is None else Cost(weight.nbytes, 4.0 * x.numel())


def _rope_work(positions: torch.Tensor, rope: RopeTable | None) -> Cost:
    """Return the cost of rotating one head of each token, without reading and writing it."""
    if rope is None:
        return Cost(0, 0)
    pairs = len(positions) * rope.cos.shape[1]
    return Cost(positions.nbytes + 2.0 * pairs * rope.cos.element_size(), 6.0 * pairs)


def _seen(length: int, queries: int, window: int | None) -> tuple[int, int]:
    """Return the number of (query, visible key) pairs, and of keys visible to any query."""
    if not queries:
        return 0, 0
    first = length - queries  # the first query's position
    if window is None:
        return queries * first + queries * (queries + 1) // 2, length
    pairs = sum(min(position + 1, window) for position in range(first, length))
    return pairs, length - max(first + 1 - window, 0)
