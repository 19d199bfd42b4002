"""Single kernels at the engine's shapes: what is run, against what, and the work it is.

Every case has the kernel's reference to be checked against and peers that compute the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch.nn import functional

from bench.models import EMBEDDED
from flipfast.engine.ops.base import RopeTable
from flipfast.engine.ops.torch_ops import TorchOps
from flipfast.metrics.reference_words import reference_words
from flipfast.metrics.token_bytes import token_bytes
from flipfast_kernels.attention_tiles import configs_for
from flipfast_kernels.fp8 import linear_fp8, linear_fp8_ref
from flipfast_kernels.fp8_rows import Fp8Rows, quantize_rows, quantize_rows_ref
from flipfast_kernels.gemm import linear, linear_ref
from flipfast_kernels.kv_cache import write_kv
from flipfast_kernels.lm_head import lm_head, lm_head_ref
from flipfast_kernels.norm_rope import norm_rope_write
from flipfast_kernels.overlap_f1 import overlap_f1, overlap_f1_ref
from flipfast_kernels.paged_attention import paged_attention, paged_attention_ref
from flipfast_kernels.word_f1 import build_token_table, word_f1, word_f1_ref

PAGE = 16
HALF = torch.bfloat16


@dataclass
class Case:
    """A call of a kernel."""

    run: Callable[[], object]  # ready to be repeated
    got: Callable[[], torch.Tensor]  # the result to be checked, from a call of its own
    expected: Callable[[], torch.Tensor]  # from the reference
    tolerance: float  # of the largest difference, as a share of the largest expected number
    n_bytes: float  # moved at least
    flops: float = 0.0  # of its products
    peers: dict[str, Callable[[], object]] = field(default_factory=dict)  # calls for the same

    def check(self) -> None:
        """Fail where the kernel is wrong."""
        got, expected = self.got().double(), self.expected().double()
        off = float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
        assert off <= self.tolerance, f"off by {off:.2g} of the largest number"


def product(n_out: int, n_in: int, m: int, device: torch.device, dtype: Any = HALF) -> Case:
    """The batch-invariant product, against cuBLAS."""
    x, weight = numbers(device, dtype, m, n_in), numbers(device, dtype, n_out, n_in, seed=1)
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


def fp8_product(
    n_out: int, n_in: int, m: int, device: torch.device, group: int | None = None
) -> Case:
    """The product of 8-bit floats, against cuBLAS: by rows, where rows have one scale."""
    x = quantize_rows(numbers(device, HALF, m, n_in), group)
    weight = quantize_rows(numbers(device, HALF, n_out, n_in, seed=1), group)
    weight = Fp8Rows(weight.numbers, weight.scales.T.contiguous().T)
    out = torch.empty(m, n_out, dtype=HALF, device=device)
    scales = x.scales, weight.scales.T

    def theirs() -> torch.Tensor:
        return torch._scaled_mm(x.numbers, weight.numbers.T, *scales, out_dtype=HALF)

    return Case(
        run=lambda: linear_fp8(x, weight, out=out),
        got=lambda: linear_fp8(x, weight),
        expected=lambda: linear_fp8_ref(x, weight),
        tolerance=1e-2,
        n_bytes=x.nbytes + weight.nbytes + out.nbytes,
        flops=2.0 * m * n_out * n_in,
        peers={} if group else {"cublas": theirs},
    )


def rounding(n_in: int, m: int, device: torch.device) -> Case:
    """Rows rounded to 8-bit floats, against a copy of them."""
    x = numbers(device, HALF, m, n_in)
    out, copy = quantize_rows(x), torch.empty_like(x)
    return Case(
        run=lambda: quantize_rows(x, out=out),
        got=lambda: quantize_rows(x).widened(),
        expected=lambda: quantize_rows_ref(x).widened(),
        tolerance=0.0,
        n_bytes=x.nbytes + out.nbytes,
        peers={"copy": lambda: copy.copy_(x)},
    )


def head(vocab: int, n_in: int, m: int, device: torch.device, dtype: Any = HALF) -> Case:
    """Arg-max inside the head's product, against a product, its logits and their arg-max."""
    x, weight = numbers(device, dtype, m, n_in), numbers(device, dtype, vocab, n_in, seed=1)
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


def norm_rope(
    n_tokens: int, heads: tuple[int, int, int], device: torch.device, dtype: Any = HALF
) -> Case:
    """Norms, rotation and the write into the pages in one pass, against the parts."""
    n_heads, n_kv_heads, head_dim = heads
    query, key, value = numbers(device, dtype, n_tokens, n_heads + 2 * n_kv_heads, head_dim).split(
        (n_heads, n_kv_heads, n_kv_heads), dim=1
    )
    n_pages = -(-n_tokens // PAGE)
    pages = [numbers(device, dtype, n_pages, PAGE, n_kv_heads, head_dim) for _ in range(2)]
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
    sizes: tuple[int, int, int],
    heads: tuple[int, int, int],
    device: torch.device,
    dtype: Any = HALF,
) -> Case:
    """The last tokens of each sequence over its pages, against torch."""
    (n_seqs, queries, length), (n_heads, n_kv_heads, head_dim) = sizes, heads
    query = numbers(device, dtype, n_seqs * queries, n_heads, head_dim)
    key, value = (
        numbers(device, dtype, n_seqs * length, n_kv_heads, head_dim, seed=s) for s in (1, 2)
    )
    out = torch.empty(n_seqs * queries, n_heads * head_dim, dtype=dtype, device=device)
    pages, index = in_pages(key, value, n_seqs, queries)
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
        peers={"sdpa": _sdpa(query, key, value, n_seqs, scale)},
    )


def mixed_attention(
    sizes: tuple[int, int, int],
    heads: tuple[int, int, int],
    device: torch.device,
    dtype: Any = HALF,
) -> Case:
    """Decoding sequences and whole prompts, as steps launch them: each kind by itself. Against one
    launch for both, whose tile follows the mean number of rows ("one_launch"), and one in the tile
    for many rows ("one_tall").

    Args:
        sizes: decoding sequences, tokens of every sequence, whole prompts.
        heads: query heads, key heads, head size.
        device, dtype: of all tensors.
    """
    (n_decode, length, n_whole), (n_heads, n_kv_heads, head_dim) = sizes, heads
    n_seqs, n_rows = n_decode + n_whole, n_decode + n_whole * length
    query = numbers(device, dtype, n_rows, n_heads, head_dim)
    key, value = (
        numbers(device, dtype, n_seqs * length, n_kv_heads, head_dim, seed=s) for s in (1, 2)
    )
    out = torch.empty(n_rows, n_heads * head_dim, dtype=dtype, device=device)
    pages, (_, lengths, tables) = in_pages(key, value, n_seqs, 1)
    whole = n_decode + _offsets(n_whole, length, device)
    starts = torch.cat([torch.arange(n_decode, dtype=torch.int32, device=device), whole])
    scale = head_dim**-0.5
    sections = ((n_decode, n_decode, 1), (n_whole, n_whole * length, length))
    many = configs_for(head_dim, dtype, device)[1]

    def attend(**options: Any) -> torch.Tensor:
        index = (starts, lengths, tables)
        most = {"max_seqlen_q": length, "max_seq_len": length, "scale": scale, "validate": False}
        return paged_attention(query, *pages, *index, out=out, **most, **options)

    pairs = n_decode * length + n_whole * length * (length + 1) / 2
    return Case(
        run=lambda: attend(sections=sections),
        got=lambda: attend(sections=sections).clone(),
        expected=lambda: paged_attention_ref(query, *pages, starts, lengths, tables, scale=scale),
        tolerance=2e-2,
        n_bytes=query.nbytes + out.nbytes + key.nbytes + value.nbytes,
        flops=4.0 * pairs * n_heads * head_dim,
        peers={"one_launch": attend, "one_tall": lambda: attend(config=many)},
    )


def overlap(n_pairs: int, each: int, length: int, device: torch.device) -> Case:
    """Rows of `length` ids, `each` predictions a reference; a quarter of a row's ids is shared."""
    generator = torch.Generator(device).manual_seed(0)
    n_references = n_pairs // each

    def ids(rows: int) -> torch.Tensor:
        return torch.randint(50_000, (rows, length), generator=generator, device=device).int()

    references, predictions = ids(n_references), ids(n_references * each)
    shared = length // 4
    predictions.view(n_references, each, length)[:, :, :shared] = references[:, None, :shared]
    rows = (predictions.flatten(), _offsets(len(predictions), length, device))
    rows += (references.flatten(), _offsets(n_references, length, device))
    counts, scores = overlap_f1(*rows)
    out = (counts, scores)
    n_bytes = sum(part.nbytes for part in (*rows, *out))
    return Case(
        run=lambda: overlap_f1(*rows, max_len=length, validate=False, out=out),
        got=lambda: overlap_f1(*rows)[1],
        expected=lambda: overlap_f1_ref(*rows)[1],
        tolerance=0.0,
        n_bytes=n_bytes,
        peers={"torch": lambda: overlap_f1_ref(*rows)},
    )


def words(n_rows: int, length: int, device: torch.device) -> Case:
    """Rows of real tokens, each row scored against a reference of its own, eight rows each."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(EMBEDDED)
    table = build_token_table(token_bytes(tokenizer)).to(device)
    text = "Write a short story about a river in the north and the people who live beside it. "
    row = torch.tensor((tokenizer(text * length)["input_ids"])[:length], dtype=torch.int32)
    ids = torch.stack([row.roll(i % length) for i in range(n_rows)]).to(device)
    lens = torch.full((n_rows,), length, dtype=torch.int32, device=device)
    texts = [f"Tell me a story about river {i} and its people." for i in range(n_rows // 8)]
    references = reference_words(texts).to(device)
    out = word_f1(ids, lens, None, None, table, references, samples=8)
    few = (ids[:64], lens[:64], None, None, table, references)
    which = torch.arange(64, dtype=torch.int32, device=device) // 8
    distinct = 12.0 * references.hashes.shape[0] * 8
    return Case(
        run=lambda: word_f1(
            ids, lens, None, None, table, references, samples=8, out=out, validate=False
        ),
        got=lambda: word_f1(*few, which).scores,
        expected=lambda: word_f1_ref(*few, which).scores.to(device),
        tolerance=0.0,
        n_bytes=36.0 * ids.numel() + distinct + out.scores.nbytes + out.counts.nbytes,
    )


def _offsets(rows: int, length: int, device: torch.device) -> torch.Tensor:
    return torch.arange(rows + 1, dtype=torch.int32, device=device) * length


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


def in_pages(
    key: torch.Tensor, value: torch.Tensor, n_seqs: int, queries: int
) -> tuple[list[torch.Tensor], tuple[torch.Tensor, ...]]:
    """Keys and values of n_seqs sequences of one length in pages in a random order, and the index:
    where queries start, lengths, tables of pages.
    """
    length, device = len(key) // n_seqs, key.device
    width = -(-length // PAGE)
    order = torch.randperm(n_seqs * width, generator=torch.Generator().manual_seed(0)).to(device)
    tables, at = order.int().view(n_seqs, width), torch.arange(length, device=device)
    slots = (tables.long()[:, at // PAGE] * PAGE + at % PAGE).flatten()
    pages = []
    for x in (key, value):
        page = torch.zeros(n_seqs * width, PAGE, *x.shape[1:], dtype=x.dtype, device=device)
        page.flatten(0, 1)[slots] = x
        pages.append(page)
    lengths = torch.full((n_seqs,), length, dtype=torch.int32, device=device)
    return pages, (_offsets(n_seqs, queries, device), lengths, tables)


def numbers(device: torch.device, dtype: torch.dtype, *shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=device).to(dtype)
