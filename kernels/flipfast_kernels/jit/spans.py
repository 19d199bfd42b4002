# mypy: ignore-errors
"""Device code for finding the instruction's span."""

import triton
import triton.language as tl


# Each lane reads and writes its own row a number at a time: what divides by 16 helps nothing, and
# would be another variant to compile.
@triton.jit(
    do_not_specialize=[
        "n_rows",
        "width",
        "ids_stride",
        "vocab",
        "n_states",
        "first_inside",
        "first_after",
    ],
    do_not_specialize_on_alignment=["begin_ptr", "end_ptr", "status_ptr"],
)
def find_spans_kernel(
    ids_ptr,
    lens_ptr,
    tokens_ptr,
    table_ptr,
    results_ptr,
    begin_ptr,
    end_ptr,
    status_ptr,
    n_rows,
    width,
    ids_stride,
    vocab,
    n_states,
    first_inside,
    first_after,
    START: tl.constexpr,
    NO_CHANGE: tl.constexpr,
    LENGTH_BITS: tl.constexpr,
    STATE_BITS: tl.constexpr,
    FOUND: tl.constexpr,
    BLOCK: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """One row per lane: walk the automaton over the row's tokens and record the value's span."""
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = rows < n_rows
    length = tl.load(lens_ptr + rows, mask=inside, other=0).to(tl.int32)
    # The host may not have checked lengths: a wrong one must not read past the row.
    length = tl.minimum(length, width)
    row_ptrs = ids_ptr + rows.to(tl.int64) * ids_stride
    state = tl.full([BLOCK], START, tl.int32)
    position = tl.zeros([BLOCK], tl.int32)
    begin = tl.zeros([BLOCK], tl.int32)
    end = tl.zeros([BLOCK], tl.int32)
    for first in range(0, tl.max(length, axis=0), UNROLL):
        # Unrolled so that ids and words of later tokens load while a table entry is awaited.
        for step in tl.static_range(UNROLL):
            live = first + step < length
            token = tl.load(row_ptrs + first + step, mask=live, other=0).to(tl.int64)
            known = live & (token >= 0) & (token < vocab)
            # Word 0 is an unknown token; past its end a row stays in its state.
            word = tl.load(tokens_ptr + token, mask=known, other=0)
            word = tl.where(live, word, NO_CHANGE)
            # Fits int32: a table has at most 2**28 entries.
            at = (word >> LENGTH_BITS) * n_states + state
            entry = tl.load(table_ptr + at).to(tl.int32)
            after = entry & ((1 << STATE_BITS) - 1)
            event = position + (entry >> STATE_BITS)
            begin = tl.where((state < first_inside) & (after >= first_inside), event, begin)
            end = tl.where((state < first_after) & (after >= first_after), event, end)
            position += word & ((1 << LENGTH_BITS) - 1)
            state = after
    end = tl.where(state >= first_after, end, position)
    status = tl.load(results_ptr + state)
    found = status == FOUND
    tl.store(begin_ptr + rows, tl.where(found, begin, 0), mask=inside)
    tl.store(end_ptr + rows, tl.where(found, end, 0), mask=inside)
    tl.store(status_ptr + rows, status, mask=inside)
