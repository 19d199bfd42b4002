# mypy: ignore-errors
"""Device code that merges the splits of a query's keys (FlashDecoding's second step)."""

import triton
import triton.language as tl


@triton.jit
def merge(top, total, acc, part_top, part_total, part_acc, to_log2):
    """Merge a split's softmax (maximum, sum and weighted values) into the running one.

    A split without a visible key (maximum -inf) changes no bit, and neither does merging into an
    empty running state.
    """
    new_top = tl.maximum(top, part_top)
    shift = tl.where(new_top == float("-inf"), 0.0, new_top)
    old = tl.exp2((top - shift) * to_log2)
    part = tl.exp2((part_top - shift) * to_log2)
    total = tl.fma(part_total, part, total * old)
    acc = tl.fma(part_acc, tl.broadcast_to(part[:, None], acc.shape), acc * old[:, None])
    return new_top, total, acc


@triton.jit
def _sequence_of_token(token, cu_seqlens_q_ptr, first_seq, end_seq):
    """The last of these sequences that starts at or before a token: only that can contain it."""
    low = first_seq
    high = end_seq
    while high - low > 1:
        middle = (low + high) // 2
        if tl.load(cu_seqlens_q_ptr + middle) <= token:
            low = middle
        else:
            high = middle
    return low


@triton.jit(do_not_specialize=["first_seq", "end_seq", "first_token", "n_tokens", "window"])
def combine_kernel(
    parts_ptr,
    stats_ptr,
    out_ptr,
    cu_seqlens_q_ptr,
    seq_lens_ptr,
    first_seq,
    end_seq,
    first_token,
    n_tokens,
    window,
    to_log2,
    N_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SPLIT: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
):
    """Merge the splits of one token's heads, in ascending order, with `merge`.

    The launch is for the same sequences and tokens as that of `attend_kernel`.
    """
    token = first_token + tl.program_id(0)
    seq = _sequence_of_token(token, cu_seqlens_q_ptr, first_seq, end_seq)
    seq_end = tl.load(cu_seqlens_q_ptr + seq + 1)
    # Padding tokens belong to no sequence: nothing was computed for them.
    if token >= seq_end:
        return
    position = tl.load(seq_lens_ptr + seq) - seq_end + token
    begin = 0
    if HAS_WINDOW:
        begin = tl.maximum(position - window + 1, 0)
    heads = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    dims = tl.arange(0, BLOCK_D)
    head_inside = heads < N_HEADS
    inside = head_inside[:, None] & (dims < HEAD_DIM)[None, :]
    rows = tl.program_id(0).to(tl.int64) * N_HEADS + heads

    top = tl.full((BLOCK_H,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_H,), tl.float32)
    acc = tl.zeros((BLOCK_H, BLOCK_D), tl.float32)
    for split in range(begin // SPLIT, position // SPLIT + 1):
        at = tl.cast(split, tl.int64) * n_tokens * N_HEADS + rows
        part_top = tl.load(stats_ptr + at * 2, mask=head_inside, other=0.0)
        part_total = tl.load(stats_ptr + at * 2 + 1, mask=head_inside, other=1.0)
        part_acc = tl.load(
            parts_ptr + at[:, None] * HEAD_DIM + dims[None, :], mask=inside, other=0.0
        )
        top, total, acc = merge(top, total, acc, part_top, part_total, part_acc, to_log2)
    result = tl.div_rn(acc, tl.broadcast_to(total[:, None], acc.shape))
    out_rows = token.to(tl.int64) * N_HEADS + heads
    out_ptrs = out_ptr + out_rows[:, None] * HEAD_DIM + dims[None, :]
    tl.store(out_ptrs, result.to(out_ptr.dtype.element_ty), mask=inside)
