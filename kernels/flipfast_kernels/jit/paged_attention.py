# mypy: ignore-errors
"""Device code for attention over the paged KV cache.

Every operation on a query's row is exact (max, products with 0 and 1), one correctly rounded
operation (`tl.fma` where a compiler might or might not fuse), or the same instruction on the same
operands, so that a row has the same bits in every tile, step and split (see the host module).
"""

import triton
import triton.language as tl

from flipfast_kernels.jit.combine_splits import merge


@triton.jit
def _key_block(
    query,
    key_pages,
    value_pages,
    table,
    first,
    positions,
    seq_len,
    page_stride,
    offset_stride,
    window,
    to_cap,
    to_log2,
    top,
    total,
    acc,
    MASKED: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One online-softmax step (Milakov and Gimelshein 2018; Dao 2023) over BLOCK_N keys."""
    BLOCK_D: tl.constexpr = query.shape[1]
    dims = tl.arange(0, BLOCK_D)
    dim_inside = dims < HEAD_DIM
    keys = first + tl.arange(0, BLOCK_N)
    # Past the sequence's end, page numbers and values may be anything: use page 0 and zeros.
    if MASKED:
        written = keys < seq_len
        pages = tl.load(table + keys // PAGE_SIZE, mask=written, other=0)
    else:
        pages = tl.load(table + keys // PAGE_SIZE)
    slots = pages.to(tl.int64) * page_stride + (keys % PAGE_SIZE) * offset_stride
    k_ptrs = key_pages + slots[None, :] + dims[:, None]
    v_ptrs = value_pages + slots[:, None] + dims[None, :]
    if MASKED:
        k = tl.load(k_ptrs, mask=written[None, :] & dim_inside[:, None], other=0.0)
        v = tl.load(v_ptrs, mask=written[:, None] & dim_inside[None, :], other=0.0)
    elif HEAD_DIM == BLOCK_D:
        k = tl.load(k_ptrs)
        v = tl.load(v_ptrs)
    else:
        k = tl.load(k_ptrs, mask=dim_inside[:, None], other=0.0)
        v = tl.load(v_ptrs, mask=dim_inside[None, :], other=0.0)

    scores = tl.dot(query, k, input_precision="ieee")
    if HAS_SOFTCAP:
        # tanh(y) = 1 - 2 / (exp(2y) + 1); the cap itself is part of to_log2.
        scores = 1.0 - 2.0 / (tl.exp2(scores * to_cap) + 1.0)
    if MASKED:
        seen = keys[None, :] <= positions[:, None]
        if HAS_WINDOW:
            seen &= keys[None, :] > positions[:, None] - window
        scores = tl.where(seen, scores, float("-inf"))

    new_top = tl.maximum(top, tl.max(scores, 1))
    # For a row that has seen no key yet this gives exp2(-inf) = 0, not exp2(-inf + inf).
    shift = tl.where(new_top == float("-inf"), 0.0, new_top)
    weights = tl.exp2((scores - shift[:, None]) * to_log2)
    decay = tl.exp2((top - shift) * to_log2)
    total = tl.fma(total, decay, tl.sum(weights, 1))
    acc = acc * decay[:, None]
    acc = tl.dot(weights.to(v.dtype), v, acc, input_precision="ieee")
    return new_top, total, acc


@triton.jit
def _key_range(
    query,
    key_pages,
    value_pages,
    table,
    begin,
    end,
    whole,
    positions,
    seq_len,
    page_stride,
    offset_stride,
    window,
    to_cap,
    to_log2,
    HAS_WINDOW: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """A new softmax over keys [begin, end); every row sees the keys before `whole`."""
    BLOCK_M: tl.constexpr = query.shape[0]
    BLOCK_D: tl.constexpr = query.shape[1]
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    masked_begin = begin
    if not HAS_WINDOW:
        masked_begin = tl.minimum(tl.maximum(whole // BLOCK_N * BLOCK_N, begin), end)
        for first in range(begin, masked_begin, BLOCK_N):
            top, total, acc = _key_block(
                query, key_pages, value_pages, table, first, positions, seq_len, page_stride,
                offset_stride, window, to_cap, to_log2, top, total, acc, False, False,
                HAS_SOFTCAP, HEAD_DIM, PAGE_SIZE, BLOCK_N,
            )  # fmt: skip
    for first in range(masked_begin, end, BLOCK_N):
        top, total, acc = _key_block(
            query, key_pages, value_pages, table, first, positions, seq_len, page_stride,
            offset_stride, window, to_cap, to_log2, top, total, acc, True, HAS_WINDOW,
            HAS_SOFTCAP, HEAD_DIM, PAGE_SIZE, BLOCK_N,
        )  # fmt: skip
    return top, total, acc


@triton.jit
def _sequence_of(
    block, cu_seqlens_q_ptr, first_seq, end_seq, GROUP: tl.constexpr, BLOCK_M: tl.constexpr
):
    """The last of the sequences [first_seq, end_seq) whose blocks start at or before this one.

    The blocks of sequence i start at cu_seqlens_q[i] * GROUP // BLOCK_M + i: never fewer than it
    needs, and never shared with another sequence.
    """
    low = first_seq
    high = end_seq
    while high - low > 1:
        middle = (low + high) // 2
        start = tl.load(cu_seqlens_q_ptr + middle) * GROUP // BLOCK_M + middle
        if start <= block:
            low = middle
        else:
            high = middle
    return low


# One binary for any step.
@triton.jit(
    do_not_specialize=[
        "first_seq", "end_seq", "first_token", "n_tokens", "window", "table_stride",
    ]
)  # fmt: skip
def attend_kernel(
    query_ptr,
    key_pages_ptr,
    value_pages_ptr,
    out_ptr,
    parts_ptr,
    stats_ptr,
    cu_seqlens_q_ptr,
    seq_lens_ptr,
    tables_ptr,
    first_seq,
    end_seq,
    first_token,
    n_tokens,
    window,
    to_cap,
    to_log2,
    query_token_stride,
    query_head_stride,
    page_stride,
    offset_stride,
    head_stride,
    table_stride,
    N_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SPLIT: tl.constexpr,
    MODE: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
):
    """BLOCK_M rows (tokens times the query heads of one KV head) of a sequence against its keys.

    A launch is for the sequences [first_seq, end_seq), which have n_tokens from first_token on. Its
    programs are ordered by KV head first: those that run at a time read the keys of a token, which
    lie side by side.

    MODE "one": every sequence fits into one split. "loop": a program walks over all splits.
    "parallel": a program takes one split and stores its softmax for `combine_kernel`.
    """
    N_KV_HEADS: tl.constexpr = N_HEADS // GROUP
    block = tl.program_id(0) // N_KV_HEADS
    kv_head = tl.program_id(0) % N_KV_HEADS
    seq = first_seq + block
    row_0 = 0
    if not ONE_BLOCK:
        block += first_token * GROUP // BLOCK_M + first_seq
        seq = _sequence_of(block, cu_seqlens_q_ptr, first_seq, end_seq, GROUP, BLOCK_M)
        start = tl.load(cu_seqlens_q_ptr + seq) * GROUP // BLOCK_M + seq
        row_0 = (block - start) * BLOCK_M
    first_query = tl.load(cu_seqlens_q_ptr + seq)
    n_queries = tl.load(cu_seqlens_q_ptr + seq + 1) - first_query
    seq_len = tl.load(seq_lens_ptr + seq)
    if row_0 >= n_queries * GROUP:
        return

    rows = row_0 + tl.arange(0, BLOCK_M)
    row_inside = rows < n_queries * GROUP
    first_position = seq_len - n_queries
    # Rows that pad the tile take the last query's position, so they need no further keys.
    positions = first_position + tl.minimum(rows // GROUP, n_queries - 1)
    dims = tl.arange(0, BLOCK_D)
    inside = row_inside[:, None] & (dims < HEAD_DIM)[None, :]
    tokens = (first_query + rows // GROUP).to(tl.int64)
    heads = kv_head * GROUP + rows % GROUP
    q_ptrs = query_ptr + tokens[:, None] * query_token_stride + heads[:, None] * query_head_stride
    query = tl.load(q_ptrs + dims[None, :], mask=inside, other=0.0)

    last_row = tl.minimum(row_0 + BLOCK_M, n_queries * GROUP) - 1
    whole = first_position + row_0 // GROUP + 1
    end = first_position + last_row // GROUP + 1
    begin = 0
    if HAS_WINDOW:
        begin = tl.maximum(whole - window, 0) // BLOCK_N * BLOCK_N
    table = tables_ptr + seq.to(tl.int64) * table_stride
    key_pages = key_pages_ptr + kv_head.to(tl.int64) * head_stride
    value_pages = value_pages_ptr + kv_head.to(tl.int64) * head_stride
    out_rows = tokens * N_HEADS + heads

    if MODE == "loop":
        top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_M,), tl.float32)
        acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        for split in range(begin // SPLIT, tl.cdiv(end, SPLIT)):
            part_top, part_total, part_acc = _key_range(
                query, key_pages, value_pages, table, tl.maximum(begin, split * SPLIT),
                tl.minimum(end, (split + 1) * SPLIT), whole, positions, seq_len, page_stride,
                offset_stride, window, to_cap, to_log2, HAS_WINDOW, HAS_SOFTCAP, HEAD_DIM,
                PAGE_SIZE, BLOCK_N,
            )  # fmt: skip
            top, total, acc = merge(top, total, acc, part_top, part_total, part_acc, to_log2)
    else:
        if MODE == "parallel":
            split = tl.program_id(1)
            begin = tl.maximum(begin, split * SPLIT)
            end = tl.minimum(end, (split + 1) * SPLIT)
            if begin >= end:
                return
        top, total, acc = _key_range(
            query, key_pages, value_pages, table, begin, end, whole, positions, seq_len,
            page_stride, offset_stride, window, to_cap, to_log2, HAS_WINDOW, HAS_SOFTCAP,
            HEAD_DIM, PAGE_SIZE, BLOCK_N,
        )  # fmt: skip

    if MODE == "parallel":
        at = (tl.program_id(1).to(tl.int64) * n_tokens - first_token) * N_HEADS + out_rows
        tl.store(parts_ptr + at[:, None] * HEAD_DIM + dims[None, :], acc, mask=inside)
        tl.store(stats_ptr + at * 2, top, mask=row_inside)
        tl.store(stats_ptr + at * 2 + 1, total, mask=row_inside)
    else:
        result = tl.div_rn(acc, tl.broadcast_to(total[:, None], acc.shape))
        out_ptrs = out_ptr + out_rows[:, None] * HEAD_DIM + dims[None, :]
        tl.store(out_ptrs, result.to(out_ptr.dtype.element_ty), mask=inside)
