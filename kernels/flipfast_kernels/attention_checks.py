"""Argument checks of `paged_attention`; each raises a ValueError that names the problem."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch

from flipfast_kernels.kv_cache import check_pages
from flipfast_kernels.launch import (
    check_float,
    check_last_stride,
    check_offsets,
    check_range,
    check_shape,
)

MAX_HEAD_DIM = 256


def check_tensors(
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


def check_numbers(
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


def check_index(
    cu_seqlens_q: torch.Tensor,
    seq_lens: torch.Tensor,
    block_tables: torch.Tensor,
    n_tokens: int,
    pages: tuple[int, ...],
) -> None:
    """Raise ValueError unless all tokens are in the step and all keys in (n_pages, page_size)."""
    n_pages, page_size = pages
    width = block_tables.shape[1]
    check_offsets("cu_seqlens_q", cu_seqlens_q, n_tokens)
    check_range("seq_lens", seq_lens, 0, width * page_size + 1)
    queries = cu_seqlens_q.diff()
    longer = (queries > seq_lens).nonzero()
    if len(longer):
        i = int(longer[0])
        raise ValueError(
            f"seq_lens has {int(seq_lens[i])} at {i}, cu_seqlens_q gives that sequence "
            f"{int(queries[i])} tokens: its length counts them"
        )
    first_keys = torch.arange(width, device=seq_lens.device) * page_size
    held = first_keys < seq_lens[:, None]
    check_range("block_tables", block_tables.where(held, 0), 0, n_pages)


def check_longest(
    cu_seqlens_q: torch.Tensor, seq_lens: torch.Tensor, max_seqlen_q: int, max_seq_len: int
) -> None:
    for name, lengths, most in (
        ("max_seqlen_q", cu_seqlens_q.diff(), max_seqlen_q),
        ("max_seq_len", seq_lens, max_seq_len),
    ):
        longest = max(lengths.tolist(), default=0)
        if longest > most:
            raise ValueError(f"{name} is {most}, but a sequence has {longest}")


def check_sections(
    sections: Sequence[tuple[int, int, int]], n_seqs: int, n_tokens: int, max_seqlen_q: int
) -> None:
    seqs, tokens, longest = zip(*sections, strict=True)
    fits = sum(seqs) == n_seqs and sum(tokens) <= n_tokens and max(longest) <= max_seqlen_q
    if not fits or min(*seqs, *tokens) < 0:
        raise ValueError(
            f"sections is {tuple(sections)}: there are {n_seqs} sequences and {n_tokens} tokens, "
            f"max_seqlen_q is {max_seqlen_q}"
        )


def check_section_tokens(
    cu_seqlens_q: torch.Tensor, sections: Sequence[tuple[int, int, int]]
) -> None:
    starts = cu_seqlens_q.tolist()
    first_seq = first_token = 0
    for i, (n_seqs, n_tokens, longest) in enumerate(sections):
        offsets = starts[first_seq : first_seq + n_seqs + 1]
        if (offsets[0], offsets[-1]) != (first_token, first_token + n_tokens):
            raise ValueError(
                f"section {i} has {n_tokens} tokens from {first_token} on, cu_seqlens_q gives its "
                f"{n_seqs} sequences those from {offsets[0]} to {offsets[-1]}"
            )
        most = max((end - start for start, end in pairwise(offsets)), default=0)
        if most > longest:
            raise ValueError(f"section {i} is said to have {longest} tokens at most, not {most}")
        first_seq, first_token = first_seq + n_seqs, first_token + n_tokens
