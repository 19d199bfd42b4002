"""Single kernels at the engine's shapes: what is run, against what, and the work it is.

Every case has the kernel's reference to be checked against and peers that compute the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from flipfast.engine.attention import AttentionMetadata, AttentionShape, load_attention
from flipfast.engine.ops.base import RopeTable
from flipfast.engine.ops.torch_ops import TorchOps
from flipfast.errors import ConfigError, MissingDependencyError
from flipfast_kernels.gemm import linear, linear_ref
from flipfast_kernels.kv_cache import write_kv
from flipfast_kernels.lm_head import lm_head, lm_head_ref
from flipfast_kernels.norm import rms_norm, rms_norm_ref
from flipfast_kernels.norm_rope import norm_rope_write
from flipfast_kernels.paged_attention import paged_attention, paged_attention_ref
from flipfast_kernels.swiglu import gated, gated_ref

PAGE = 16
HALF = torch.bfloat16


@dataclass
class Case:
    """A call of a kernel.

    Attributes:
        run: the call, ready to be repeated.
        got: the result to be checked, from a call of its own.
        expected: what it must be, from the reference.
        tolerance: of the largest difference, as a share of the largest expected number.
        n_bytes, flops: least bytes moved, and operations of its products.
        peers: other libraries' calls for the same, by name.
    """

    run: Callable[[], object]
    got: Callable[[], torch.Tensor]
    expected: Callable[[], torch.Tensor]
    tolerance: float
    n_bytes: float
    flops: float = 0.0
    peers: dict[str, Callable[[], object]] = field(default_factory=dict)

    def check(self) -> None:
        """Fail where the kernel is wrong."""
        got, expected = self.got().double(), self.expected().double()
        off = float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
        assert off <= self.tolerance, f"off by {off:.2g} of the largest number"


def product(n_out: int, n_in: int, m: int, device: torch.device, dtype: Any = HALF) -> Case:
    """The batch-invariant product, against cuBLAS."""
    x, weight = _numbers(device, dtype, m, n_in), _numbers(device, dtype, n_out, n_in, seed=1)
    out = torch.empty(m, n_out, dtype=dtype, device=device)
    return Case(
        run=lambda: linear(x, weight, out=out),
        got=lambda: linear(x, weight),
        expected=lambda: linear_ref(x.double(), weight.double()),
        tolerance=1e-2,
        n_bytes=x.nbytes + weight.nbytes + out.nbytes,
        flops=2.0 * m * n_out * n_in,
        peers={"cublas": lambda: torch.mm(x, weight.t(), out=out)},
    )


def head(vocab: int, n_in: int, m: int, device: torch.device, dtype: Any = HALF) -> Case:
    """Arg-max inside the head's product, against a product, its logits and their arg-max."""
    x, weight = _numbers(device, dtype, m, n_in), _numbers(device, dtype, vocab, n_in, seed=1)
    logits = torch.empty(m, vocab, dtype=dtype, device=device)
    return Case(
        run=lambda: lm_head(x, weight),
        got=lambda: lm_head(x, weight).best_logit,
        expected=lambda: lm_head_ref(x, weight).best_logit,
        tolerance=1e-3,
        n_bytes=x.nbytes + weight.nbytes + 12.0 * m,
        flops=2.0 * m * vocab * n_in,
        peers={"torch": lambda: torch.mm(x, weight.t(), out=logits).argmax(-1)},
    )


def norm(m: int, d: int, device: torch.device, dtype: Any = HALF) -> Case:
    """RMSNorm with the residual's addition, against torch's two calls."""
    x, residual = _numbers(device, dtype, m, d), _numbers(device, dtype, m, d, seed=1)
    weight, out = torch.ones(d, device=device), torch.empty(m, d, dtype=dtype, device=device)
    narrow = weight.to(dtype)
    return Case(
        run=lambda: rms_norm(x, weight, 1e-6, out, residual),
        got=lambda: rms_norm(x, weight, 1e-6, None, residual.clone()),
        expected=lambda: rms_norm_ref(x, weight, 1e-6, residual=residual.clone()),
        tolerance=1e-2,
        n_bytes=2.0 * x.nbytes + 2.0 * residual.nbytes,
        peers={"torch": lambda: functional.rms_norm(residual.add_(x), (d,), narrow, 1e-6)},
    )


def activation(m: int, d: int, device: torch.device, dtype: Any = HALF) -> Case:
    """SwiGLU, against torch's two calls."""
    both = _numbers(device, dtype, m, 2 * d)
    out = torch.empty(m, d, dtype=dtype, device=device)
    gate, up = both.chunk(2, dim=-1)
    return Case(
        run=lambda: gated(both, "silu", out),
        got=lambda: gated(both, "silu"),
        expected=lambda: gated_ref(both, "silu"),
        tolerance=1e-2,
        n_bytes=both.nbytes + out.nbytes,
        peers={"torch": lambda: torch.mul(functional.silu(gate), up, out=out)},
    )


def norm_rope(
    n_tokens: int, heads: tuple[int, int, int], device: torch.device, dtype: Any = HALF
) -> Case:
    """Norms, rotation and the write into the pages in one pass, against the parts."""
    n_heads, n_kv_heads, head_dim = heads
    query, key, value = _numbers(device, dtype, n_tokens, n_heads + 2 * n_kv_heads, head_dim).split(
        (n_heads, n_kv_heads, n_kv_heads), dim=1
    )
    n_pages = -(-n_tokens // PAGE)
    pages = [_numbers(device, dtype, n_pages, PAGE, n_kv_heads, head_dim) for _ in range(2)]
    slots, weight = torch.arange(n_tokens, device=device), torch.ones(head_dim, device=device)
    angles = torch.outer(torch.arange(4096.0), 1e6 ** -torch.linspace(0, 1, head_dim // 2))
    rope = RopeTable(angles.cos().to(device), angles.sin().to(device))
    positions, ops = slots % 4096, TorchOps(device, dtype)

    def fused() -> torch.Tensor:
        tables = (positions, rope.cos, rope.sin, weight, weight, 1e-6)
        norm_rope_write(query, key, value, *pages, slots, *tables, validate=False)
        return pages[0].flatten(0, 1)[:n_tokens]

    def parts() -> torch.Tensor:
        kept = key.clone()  # the fused pass leaves keys as they are
        for x in (query, kept):
            ops.norm_rope(x, positions, rope, weight, 1e-6)
        write_kv(kept, value, *pages, slots, validate=False)
        return kept

    moved = 2.0 * (query.numel() + key.numel() + value.numel()) * dtype.itemsize
    return Case(
        run=fused,
        got=lambda: fused().clone(),  # the parts write to the same pages
        expected=parts,
        tolerance=2e-2,
        n_bytes=moved,
        peers={"parts": parts},
    )


def attention(
    n_seqs: int,
    queries: int,
    length: int,
    heads: tuple[int, int, int],
    device: torch.device,
    dtype: Any = HALF,
) -> Case:
    """The last tokens of each sequence over its pages, against torch and the FlashAttentions."""
    n_heads, n_kv_heads, head_dim = heads
    query = _numbers(device, dtype, n_seqs * queries, n_heads, head_dim)
    key, value = (
        _numbers(device, dtype, n_seqs * length, n_kv_heads, head_dim, seed=s) for s in (1, 2)
    )
    out = torch.empty(n_seqs * queries, n_heads * head_dim, dtype=dtype, device=device)
    shape = AttentionShape(n_heads, n_kv_heads, head_dim, dtype, device)
    pages, meta = _pages(key, value, n_seqs, queries, PAGE)
    index = (meta.cu_seqlens_q, meta.seq_lens, meta.block_tables)
    scale = head_dim**-0.5
    most = {"max_seqlen_q": queries, "max_seq_len": length, "scale": scale}
    pairs = n_seqs * sum(length - i for i in range(queries))
    return Case(
        run=lambda: paged_attention(query, *pages, *index, **most, out=out, validate=False),
        got=lambda: paged_attention(query, *pages, *index, **most),
        expected=lambda: paged_attention_ref(query, *pages, *index, scale=scale),
        tolerance=2e-2,
        n_bytes=query.nbytes + out.nbytes + key.nbytes + value.nbytes,
        flops=4.0 * pairs * n_heads * head_dim,
        peers={
            "sdpa": _sdpa(query, key, value, n_seqs, scale),
            **_backends(shape, query, key, value, out, n_seqs, queries),
        },
    )


def _sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, n_seqs: int, scale: float
) -> Callable[[], object]:
    """torch's own on keys side by side; it can mask only whole prompts or single queries."""
    sides = [x.unflatten(0, (n_seqs, -1)).transpose(1, 2).contiguous() for x in (query, key, value)]
    queries, length = sides[0].shape[2], sides[1].shape[2]
    assert queries in (1, length)
    causal = queries > 1
    return lambda: functional.scaled_dot_product_attention(
        *sides, is_causal=causal, scale=scale, enable_gqa=True
    )


def _backends(
    shape: AttentionShape,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    n_seqs: int,
    queries: int,
) -> dict[str, Callable[[], object]]:
    """The FlashAttentions that are installed and serve the device, each over pages of its own."""
    found: dict[str, Callable[[], object]] = {}
    for name in ("flash_attn", "torch_varlen"):
        try:
            backend = load_attention(name, shape)
        except (ConfigError, MissingDependencyError):
            continue
        cache, meta = _pages(key, value, n_seqs, queries, backend.page_size)
        options: dict[str, Any] = {"scale": shape.head_dim**-0.5, "window": None, "softcap": None}

        def call(
            backend: Any = backend, cache: Any = cache, meta: Any = meta, options: Any = options
        ) -> object:
            return backend.attend(query, cache, meta, out, **options)

        found[name] = call
    return found


def _pages(
    key: torch.Tensor, value: torch.Tensor, n_seqs: int, queries: int, page_size: int
) -> tuple[tuple[torch.Tensor, torch.Tensor], AttentionMetadata]:
    """Keys and values of n_seqs sequences of one length in pages in a random order."""
    length, device = len(key) // n_seqs, key.device
    width = -(-length // page_size)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(n_seqs * width, generator=generator).to(device)
    tables = order.int().view(n_seqs, width)
    at = torch.arange(length, device=device)
    slots = (tables.long()[:, at // page_size] * page_size + at % page_size).flatten()
    sides = []
    for x in (key, value):
        side = torch.zeros(n_seqs * width, page_size, *x.shape[1:], dtype=x.dtype, device=device)
        side.flatten(0, 1)[slots] = x
        sides.append(side)
    metadata = AttentionMetadata(
        cu_seqlens_q=torch.arange(n_seqs + 1, dtype=torch.int32, device=device) * queries,
        seq_lens=torch.full((n_seqs,), length, dtype=torch.int32, device=device),
        block_tables=tables,
        slot_mapping=slots.view(n_seqs, length)[:, -queries:].flatten(),
        max_seqlen_q=queries,
        max_seq_len=length,
    )
    return (sides[0], sides[1]), metadata


def _numbers(device: torch.device, dtype: torch.dtype, *shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=device).to(dtype)
