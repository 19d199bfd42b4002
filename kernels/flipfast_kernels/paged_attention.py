"""Causal attention over the paged KV cache, for prefill chunks and decode in one step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from flipfast_kernels.attention_checks import (
    check_index,
    check_longest,
    check_numbers,
    check_section_tokens,
    check_sections,
    check_tensors,
)
from flipfast_kernels.attention_tiles import AttentionConfig, attention_configs, configs_for
from flipfast_kernels.jit.combine_splits import combine_kernel
from flipfast_kernels.jit.paged_attention import attend_kernel
from flipfast_kernels.launch import (
    check_device,
    device_facts,
    kernel_runs_on,
    power_of_two,
)

__all__ = ["AttentionConfig", "attention_configs", "paged_attention", "paged_attention_ref"]

_LOG2_E = 1.0 / math.log(2.0)


def runs_on(device: torch.device) -> bool:
    """Whether attention can run on a device: CUDA, or any device if Triton interprets kernels."""
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
    sections: Sequence[tuple[int, int, int]] = (),
    config: AttentionConfig | None = None,
    validate: bool = True,
) -> torch.Tensor:
    """Attention of each sequence's last tokens over its KV cache pages, with an online softmax.

    The method is FlashAttention's (Dao et al. 2022; Dao 2023) over pages (Kwon et al. 2023), with
    the query heads that share a KV head packed into one tile so that its keys are read once.

    A row's bits depend on its query and its keys alone. Keys are processed in blocks at fixed
    absolute positions, in ascending order, within splits of a fixed number of keys. The splits are
    merged in ascending order by operations that each round once, whether one program walks over
    them or many programs take one each. For a block that a row does not see, its sums are
    multiplied by exactly 1 and increased by exactly 0. The two tile heights use the same matrix
    instruction, and the same four threads sum a row in both, so chunked prefill and decode agree.
    So the height may follow the mean number of rows of the sequences in a launch.

    Work: 4 * n_heads * head_dim operations for each pair of a query and a key it sees; bytes: the
    keys and values of each sequence once per tile of rows, 2 * n_kv_heads * head_dim * itemsize
    per key. Decode is bound by bytes: at least bytes / 4.8e12 seconds on an H200; prefill by
    operations / 989e12 (datasheet, dense bf16).

    Args:
        query: (n_tokens, n_heads, head_dim) of the pages' dtype; only the last stride must be 1.
        key_pages, value_pages: (pages, page_size, n_kv_heads, head_dim), bfloat16, float16 or
            float32, page_size a power of two, head_dim at most 256.
        cu_seqlens_q: (n_seqs + 1,) int32, where each sequence's tokens start.
        seq_lens: (n_seqs,) int32, keys of each sequence, including its tokens of this step.
        block_tables: (n_seqs, width) int32; entries after a sequence's last page are ignored.
        max_seqlen_q: upper bound on the tokens of a sequence.
        max_seq_len: upper bound on seq_lens.
        scale: multiplies q.k, above 0.
        window: positions that a query sees, its own included; None for all.
        softcap: caps scores to softcap * tanh(score / softcap); None for no cap.
        out: (n_tokens, n_heads * head_dim) of the query's dtype, contiguous; None allocates it.
        sections: how many of the sequences follow each other that have similar numbers of tokens,
            the sum of these, and an upper bound on them: each section is launched by itself, so
            that decoding rows beside prompts get the tile for few rows. () for one section, as
            where one tile serves all.
        config: None picks one for each launch.
        validate: check the index tensors against the pages and each other; on CUDA the host waits
            for that. Without it a wrong value reads out-of-bounds memory.

    Returns:
        out.

    Raises:
        ValueError: dtypes, shapes, strides, devices or numbers that do not fit, offsets that
            decrease or run past the last token, lengths or pages out of range.
    """
    if out is None:
        out = query.new_empty(query.shape[0], query.shape[1:].numel())
    check_tensors(query, key_pages, value_pages, out, cu_seqlens_q, seq_lens, block_tables)
    check_numbers(scale, window, softcap, max_seqlen_q, max_seq_len)
    if sections:
        check_sections(sections, seq_lens.shape[0], query.shape[0], max_seqlen_q)
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
    if validate:
        check_index(cu_seqlens_q, seq_lens, block_tables, query.shape[0], key_pages.shape[:2])
        check_longest(cu_seqlens_q, seq_lens, max_seqlen_q, max_seq_len)
        check_section_tokens(cu_seqlens_q, sections)
    if query.shape[0] == 0 or seq_lens.shape[0] == 0:
        return out
    tensors = (query, key_pages, value_pages, out, cu_seqlens_q, seq_lens, block_tables)
    pair = configs_for(query.shape[2], query.dtype, query.device)
    few, many = pair if config is None else (config, config)
    if not sections or few == many:  # the same tile for all
        sections = ((seq_lens.shape[0], query.shape[0], max_seqlen_q),)
    first_seq = first_token = 0
    for n_seqs, n_tokens, longest in sections:
        if n_tokens:
            rows = n_tokens * query.shape[1] // key_pages.shape[2]
            tile = few if rows <= n_seqs * few.block_m else many
            place = (first_seq, first_seq + n_seqs, first_token, n_tokens)
            _launch(tensors, place, (longest, max_seq_len), (scale, window, softcap), tile)
        first_seq, first_token = first_seq + n_seqs, first_token + n_tokens
    return out


def _launch(
    tensors: tuple[torch.Tensor, ...],
    place: tuple[int, int, int, int],
    longest: tuple[int, int],
    scores: tuple[float, int | None, float | None],
    config: AttentionConfig,
) -> None:
    """Attention of the sequences [first, end), which have n_tokens from a token on."""
    query, key_pages, value_pages, out, cu_seqlens_q, seq_lens, block_tables = tensors
    first_seq, end_seq, first_token, n_tokens = place
    scale, window, softcap = scores
    _, n_heads, head_dim = query.shape
    n_seqs, n_kv_heads = end_seq - first_seq, key_pages.shape[2]
    group = n_heads // n_kv_heads
    one_block = longest[0] * group <= config.block_m
    begin, end = (at * group // config.block_m for at in (first_token, first_token + n_tokens))
    n_blocks = n_seqs if one_block else end - begin + n_seqs
    n_splits = -(-longest[1] // config.split)
    mode = _mode(n_splits, n_blocks * n_kv_heads, device_facts(query.device)[1])
    n_parts = n_splits * n_tokens * n_heads if mode == "parallel" else 0
    parts = torch.empty((n_parts, head_dim), dtype=torch.float32, device=query.device)
    stats = torch.empty((n_parts, 2), dtype=torch.float32, device=query.device)
    to_log2 = _LOG2_E * (scale if softcap is None else softcap)
    attend_kernel[(n_blocks * n_kv_heads, n_splits if mode == "parallel" else 1)](
        query,
        key_pages,
        value_pages,
        out,
        parts,
        stats,
        cu_seqlens_q,
        seq_lens,
        block_tables,
        first_seq,
        end_seq,
        first_token,
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
        first_seq,
        end_seq,
        first_token,
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
    """Reference for `paged_attention`: one sequence at a time in float64; float64 result."""
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
    """How splits map to programs; every mode gives the same bits, so the batch may decide."""
    if n_splits <= 1:
        return "one"
    return "parallel" if n_programs < 2 * n_processors else "loop"
