"""Causal attention over pages, for prefill chunks and decode in one launch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from flipfast_kernels.jit.paged_attention import attend_kernel, combine_kernel
from flipfast_kernels.kv_cache import check_pages
from flipfast_kernels.launch import (
    check_device,
    check_float,
    check_last_stride,
    check_shape,
    device_facts,
    kernel_runs_on,
    power_of_two,
)

MAX_HEAD_DIM = 256
_LOG2_E = 1.0 / math.log(2.0)


@dataclass(frozen=True)
class AttentionConfig:
    """Tile and launch of attention.

    Attributes:
        block_m: rows of a tile: tokens times the query heads of one key head.
        block_n: keys of a step of the online softmax; divides split.
        split: keys that are summed apart and merged in order.
        num_warps, num_stages: of Triton.
    """

    block_m: int
    block_n: int
    split: int
    num_warps: int
    num_stages: int


def attention_configs(
    head_dim: int, dtype: torch.dtype, capability: int
) -> tuple[AttentionConfig, AttentionConfig]:
    """The tile for few rows a sequence and the tile for many.

    Both make a row's bits alike (see `paged_attention`): they differ in their number of rows, and
    in warps so that each warp has the same number.

    Args:
        head_dim: numbers a head.
        dtype: of queries and pages.
        capability: of the device, 90 for 9.0.
    """
    if dtype == torch.float32:
        few = AttentionConfig(16, 32, 1024, 4, 1)
        return few, few
    wide = head_dim > 128
    # Half the keys where a block has little shared memory.
    block_n = (32 if wide else 64) // (1 if 90 <= capability < 120 else 2)
    # Keys hang on a load of their page numbers: of five stages two are those, three hold keys.
    stages = 3 if wide else 5
    few = AttentionConfig(64, block_n, 1024, 4, stages)
    many = few if wide else AttentionConfig(128, block_n, 1024, 8, stages)
    # Only on 9.0 do both heights mean the same instruction, and the same threads for a row.
    return (few, many) if capability == 90 else (many, many)


def runs_on(device: torch.device) -> bool:
    """Whether attention can run on a device: CUDA, or any where Triton interprets kernels."""
    return kernel_runs_on(attend_kernel, device)


def paged_attention(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    seq_lens: torch.Tensor,
    block_tables: torch.Tensor,
    *,
    max_seqlen_q: int,
    max_seq_len: int,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    out: torch.Tensor | None = None,
    config: AttentionConfig | None = None,
) -> torch.Tensor:
    """Attention of each sequence's last tokens over its pages, with an online softmax.

    The method is FlashAttention's (Dao et al. 2022; Dao 2023) over pages (Kwon et al. 2023), the
    query heads of a key head packed into one tile so that its keys are read once.

    A row's bits depend on its query and its keys alone. Keys are taken in blocks at fixed absolute
    positions, in ascending order, within splits of a fixed number of keys, which are merged in
    ascending order by operations that each round once, whether one program walks over the splits
    or many programs take one each. A block that a row does not see multiplies its sums by exactly
    1 and adds exactly 0. The two tile heights use the same matrix instruction, and a row is summed
    by the same four threads in both, so chunks and decode agree.

    Work: 4 * n_heads * head_dim operations for each pair of a query and a key it sees; bytes: the
    keys and values of each sequence once a tile of rows, 2 * n_kv_heads * head_dim * itemsize a
    key. Decode is bound by these: at least bytes / 4.8e12 seconds on an H200; prefill by
    operations / 989e12 (datasheet, dense bf16).

    Args:
        query: (n_tokens, n_heads, head_dim) of the pages' dtype, any stride but 1 in the last
            dimension.
        key_pages, value_pages: (pages, page_size, n_kv_heads, head_dim), bfloat16, float16 or
            float32, page_size a power of two, head_dim at most 256.
        cu_seqlens_q: (n_seqs + 1,) int32, where each sequence's tokens start.
        seq_lens: (n_seqs,) int32, keys of each sequence, its tokens of this step included.
        block_tables: (n_seqs, width) int32; entries behind a sequence's last page may hold
            anything.
        max_seqlen_q: at least the largest number of tokens of a sequence.
        max_seq_len: at least the largest of seq_lens.
        scale: multiplies q.k, above 0.
        window: positions that a query sees, its own included; None for all.
        softcap: caps scores to softcap * tanh(score / softcap); None for no cap.
        out: (n_tokens, n_heads * head_dim) of the query's dtype, contiguous, overwritten; None
            makes one.
        config: None picks one.

    Returns:
        out.

    Raises:
        ValueError: dtypes, shapes, strides, devices or numbers that do not fit. What the index
            tensors hold is not read.
    """
    if out is None:
        out = query.new_empty(query.shape[0], query.shape[1:].numel())
    _check(query, key_pages, value_pages, out, cu_seqlens_q, seq_lens, block_tables)
    _check_numbers(scale, window, softcap, max_seqlen_q, max_seq_len)
    check_device(
        attend_kernel,
        query=query,
        key_pages=key_pages,
        value_pages=value_pages,
        out=out,
        cu_seqlens_q=cu_seqlens_q,
        seq_lens=seq_lens,
        block_tables=block_tables,
    )
    if query.shape[0] == 0:
        return out
    _launch(
        query,
        key_pages,
        value_pages,
        out,
        (cu_seqlens_q, seq_lens, block_tables),
        (max_seqlen_q, max_seq_len),
        (scale, window, softcap),
        config,
    )
    return out


def _launch(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    out: torch.Tensor,
    index: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    longest: tuple[int, int],
    scores: tuple[float, int | None, float | None],
    config: AttentionConfig | None,
) -> None:
    cu_seqlens_q, seq_lens, block_tables = index
    scale, window, softcap = scores
    n_tokens, n_heads, head_dim = query.shape
    n_seqs, n_kv_heads = seq_lens.shape[0], key_pages.shape[2]
    group = n_heads // n_kv_heads
    capability, n_processors = device_facts(query.device)
    if config is None:
        few, many = attention_configs(head_dim, query.dtype, capability)
        config = few if longest[0] * group <= few.block_m else many
    one_block = longest[0] * group <= config.block_m
    n_blocks = n_seqs if one_block else n_tokens * group // config.block_m + n_seqs
    n_splits = -(-longest[1] // config.split)
    mode = _mode(n_splits, n_blocks * n_kv_heads, n_processors)
    n_parts = n_splits * n_tokens * n_heads if mode == "parallel" else 0
    parts = torch.empty((n_parts, head_dim), dtype=torch.float32, device=query.device)
    stats = torch.empty((n_parts, 2), dtype=torch.float32, device=query.device)
    to_log2 = _LOG2_E * (scale if softcap is None else softcap)
    attend_kernel[(n_blocks, n_kv_heads, n_splits if mode == "parallel" else 1)](
        query,
        key_pages,
        value_pages,
        out,
        parts,
        stats,
        cu_seqlens_q,
        seq_lens,
        block_tables,
        n_seqs,
        n_tokens,
        0 if window is None else window,
        0.0 if softcap is None else 2.0 * _LOG2_E * scale / softcap,
        to_log2,
        query.stride(0),
        query.stride(1),
        *key_pages.stride()[:3],
        block_tables.stride(0),
        N_HEADS=n_heads,
        GROUP=group,
        HEAD_DIM=head_dim,
        BLOCK_D=max(power_of_two(head_dim), 16),
        PAGE_SIZE=key_pages.shape[1],
        BLOCK_M=config.block_m,
        BLOCK_N=config.block_n,
        SPLIT=config.split,
        MODE=mode,
        ONE_BLOCK=one_block,
        HAS_WINDOW=window is not None,
        HAS_SOFTCAP=softcap is not None,
        enable_fp_fusion=query.dtype == torch.float32,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    if mode != "parallel":
        return
    block_h = min(power_of_two(n_heads), 16)
    combine_kernel[(n_tokens, -(-n_heads // block_h))](
        parts,
        stats,
        out,
        cu_seqlens_q,
        seq_lens,
        n_seqs,
        n_tokens,
        0 if window is None else window,
        to_log2,
        N_HEADS=n_heads,
        HEAD_DIM=head_dim,
        BLOCK_H=block_h,
        BLOCK_D=max(power_of_two(head_dim), 16),
        SPLIT=config.split,
        HAS_WINDOW=window is not None,
        enable_fp_fusion=False,
        num_warps=4,
    )


def paged_attention_ref(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    seq_lens: torch.Tensor,
    block_tables: torch.Tensor,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """What `paged_attention` computes, one sequence at a time in float64; float64 result."""
    n_heads, (page_size, n_kv_heads) = query.shape[1], key_pages.shape[1:3]
    results = []
    for i, length in enumerate(seq_lens.tolist()):
        begin, end = cu_seqlens_q[i : i + 2].tolist()
        pages = block_tables[i, : -(-length // page_size)].long()
        keys, values = (
            x[pages].flatten(0, 1)[:length].double().repeat_interleave(n_heads // n_kv_heads, 1)
            for x in (key_pages, value_pages)
        )
        scores = torch.einsum("qhd,khd->hqk", query[begin:end].double(), keys) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        at = torch.arange(length, device=query.device)
        distance = at[length - (end - begin) :, None] - at
        seen = (distance >= 0) & (distance < (length if window is None else window))
        weights = scores.masked_fill(~seen, -math.inf).softmax(dim=-1)
        results.append(torch.einsum("hqk,khd->qhd", weights, values).flatten(1))
    return torch.cat(results)


def _mode(n_splits: int, n_programs: int, n_processors: int) -> str:
    """How the splits are shared out; the bits are the same, so the batch may have a say."""
    if n_splits <= 1:
        return "one"
    return "parallel" if n_programs < 2 * n_processors else "loop"


def _check(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    out: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    seq_lens: torch.Tensor,
    block_tables: torch.Tensor,
) -> None:
    check_pages(key_pages, value_pages)
    check_float(query=query)
    n_kv_heads, head_dim = key_pages.shape[2:]
    if head_dim > MAX_HEAD_DIM:
        raise ValueError(f"head_dim is {head_dim}: at most {MAX_HEAD_DIM} are served")
    if query.dtype != key_pages.dtype or out.dtype != query.dtype:
        raise ValueError(
            f"query is {query.dtype}, out {out.dtype}, the pages {key_pages.dtype}: they must be "
            "of one dtype"
        )
    if query.dim() != 3 or query.shape[2] != head_dim or query.shape[1] % n_kv_heads:
        raise ValueError(
            f"query has shape {tuple(query.shape)}: expected (tokens, heads, {head_dim}) with a "
            f"multiple of {n_kv_heads} heads"
        )
    check_last_stride("query", query)
    check_shape("out", out, (query.shape[0], query.shape[1] * head_dim))
    if not out.is_contiguous():
        raise ValueError(f"out has strides {out.stride()}: pass a contiguous tensor")
    for name, tensor, n_dims in (
        ("cu_seqlens_q", cu_seqlens_q, 1),
        ("seq_lens", seq_lens, 1),
        ("block_tables", block_tables, 2),
    ):
        if tensor.dtype != torch.int32 or tensor.dim() != n_dims:
            raise ValueError(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)}: pass int32, {n_dims} dimensions"
            )
        check_last_stride(name, tensor)
    n_seqs = seq_lens.shape[0]
    check_shape("cu_seqlens_q", cu_seqlens_q, (n_seqs + 1,))
    check_shape("block_tables", block_tables, (n_seqs, block_tables.shape[1]))


def _check_numbers(
    scale: float, window: int | None, softcap: float | None, max_seqlen_q: int, max_seq_len: int
) -> None:
    for name, value in (("scale", scale), ("window", window), ("softcap", softcap)):
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}: it must be above 0 and finite")
    if not 0 <= max_seqlen_q <= max_seq_len:
        raise ValueError(
            f"max_seqlen_q is {max_seqlen_q}, max_seq_len {max_seq_len}: the first counts some of "
            "the second's tokens"
        )
