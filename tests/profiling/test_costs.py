"""Bytes and operations of small calls, counted by hand."""

from types import SimpleNamespace

import pytest
import torch

from flipfast.engine.attention.base import AttentionMetadata, AttentionShape
from flipfast.engine.ops.base import RopeTable
from flipfast.engine.ops.torch_ops import TorchOps
from flipfast.profiling import costs

CPU = torch.device("cpu")


def floats(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


@pytest.mark.parametrize("bias", [False, True])
def test_product(bias):
    linear = TorchOps(CPU, torch.bfloat16).linear(6, 4, bias=bias, source_dtype=torch.bfloat16)
    x, out = floats(3, 4, dtype=torch.bfloat16), floats(3, 6, dtype=torch.bfloat16)
    cost = costs.product(linear, x, out)
    assert cost.n_bytes == 2 * (3 * 4 + 6 * 4 + 3 * 6 + (6 if bias else 0))
    assert cost.flops == 2 * 3 * 4 * 6


def test_product_of_a_packed_weight():
    packed = SimpleNamespace(nbytes=1000, n_out=6, n_in=4)
    assert costs.product(packed, floats(3, 4), floats(3, 6)).n_bytes == 1000 + 4 * (12 + 18)
    fused = costs.OPS["fused_argmax"](None, packed, floats(3, 4), None)
    assert (fused.n_bytes, fused.flops) == (1000 + 48 + 24, 2 * 3 * 4 * 6)
    fused = costs.OPS["fused_log_prob"](None, packed, floats(3, 4), floats(3).long(), None)
    assert (fused.n_bytes, fused.flops) == (1000 + 48 + 24 + 36, 2 * 3 * 4 * 6 + 3 * 18)


@pytest.mark.parametrize(
    ("window", "pairs", "keys"),
    # Queries at positions 3, 4 of five and at 6 of seven.
    [(None, 4 + 5 + 7, 5 + 7), (2, 2 + 2 + 2, 3 + 2), (4, 4 + 4 + 4, 5 + 4)],
)
def test_attention(window, pairs, keys):
    n_heads, n_kv_heads, head_dim = 4, 2, 8
    shape = AttentionShape(n_heads, n_kv_heads, head_dim, torch.bfloat16, CPU)
    metadata = AttentionMetadata(
        cu_seqlens_q=torch.tensor([0, 2, 3, 3]),
        seq_lens=torch.tensor([5, 7, 9]),
        block_tables=torch.zeros(3, 1),
        slot_mapping=torch.zeros(3),
        max_seqlen_q=2,
        max_seq_len=9,
    )
    query, out = floats(3, n_heads, head_dim), floats(3, n_heads * head_dim)
    cache = (floats(1, 16, n_kv_heads, head_dim, dtype=torch.bfloat16),) * 2
    backend = SimpleNamespace(shape=shape)
    cost = costs.attend(backend, query, cache, metadata, out, scale=1.0, window=window)()
    assert cost.flops == 4 * pairs * n_heads * head_dim
    assert cost.n_bytes == 2 * 4 * 3 * 32 + 2 * keys * n_kv_heads * head_dim * 2
    written = costs.write(backend, out.view(3, 4, 8), query, cache, torch.zeros(3).long())
    assert written.n_bytes == 2 * 4 * 96 + 2 * 2 * 96 + 24


@pytest.mark.parametrize(
    ("name", "arguments", "n_bytes", "flops"),
    [
        ("embed", (floats(3).long(), floats(9, 4), 1.0, floats(3, 4)), 24 + 2 * 48, 0),
        ("embed", (floats(3).long(), floats(9, 4), 2.0, floats(3, 4)), 24 + 2 * 48, 12),
        ("rms_norm", (floats(3, 4), floats(4), 1e-6, floats(3, 4)), 48 + 16 + 48, 48),
        (
            "add_rms_norm",
            (floats(3, 4), floats(3, 4), floats(4), 1e-6, floats(3, 4)),
            48 + 96 + 16 + 48,
            60,
        ),
        ("add", (floats(3, 4), floats(3, 4)), 3 * 48, 12),
        ("gated", (floats(3, 8), "silu", floats(3, 4)), 96 + 48, 60),
        ("argmax", (floats(3, 9),), 108 + 24, 27),
        ("log_prob", (floats(3, 9), *[floats(3).long()] * 2), 108 + 24 + 24 + 12, 81),
        ("norm_rope", (floats(3, 2, 4), floats(3).long(), None, None, 1e-6), 2 * 96, 0),
        (
            "norm_rope",
            (
                floats(3, 2, 4),
                floats(3).long(),
                RopeTable(floats(9, 2), floats(9, 2)),
                floats(4),
                1e-6,
            ),
            2 * 96 + 16 + 24 + 2 * 3 * 2 * 4,
            4 * 24 + 6 * 3 * 2 * 2,
        ),
        (
            "norm_rope_write",
            (
                *(floats(3, 2, 4), floats(3, 1, 4), floats(3, 1, 4)),
                *(floats(3).long(), RopeTable(floats(9, 2), floats(9, 2)), floats(4), None, 1e-6),
                *(None, (floats(1, 16, 1, 4).half(),) * 2, floats(3).long()),
            ),
            # Queries twice, keys and values once and once as float16, slots, positions, tables,
            # a weight.
            2 * 96 + 2 * 48 + 2 * 24 + 24 + 24 + 2 * 3 * 2 * 4 + 16,
            4 * 24 + 6 * 3 * 3 * 2,
        ),
    ],
)
def test_other_operations(name, arguments, n_bytes, flops):
    cost = costs.OPS[name](None, *arguments)
    assert (cost.n_bytes, cost.flops) == (n_bytes, flops)
