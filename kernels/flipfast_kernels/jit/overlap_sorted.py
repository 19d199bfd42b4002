# mypy: ignore-errors
# ruff: noqa: RUF005  # Triton has no starred expressions in tuples
"""Device code for the id overlap of short rows: a thread sorts both rows in its registers.

A row becomes unique keys, an id and the number of equal ids before it, in ascending order. Two rows
share the keys that are twice in their merged sequence, side by side. What is compared with what is
fixed (Batcher 1968, odd-even merging), so that a row's ids stay in registers of one thread, whose
names the compiler knows.
"""

import triton
import triton.language as tl

from flipfast_kernels.jit.overlap_f1 import pair_index, span, store_scores

# An id with no other bits has a key. Rows are filled up with ids that never meet.
_ID_BITS = tl.constexpr((1 << 23) - 1)
_PREDICTION_FILL = tl.constexpr(1 << 23)
_REFERENCE_FILL = tl.constexpr(1 << 24)
_COPIES = tl.constexpr(7)  # bits of twice the number of equal ids before
_CHUNK = tl.constexpr(8)  # ids compared at a time where some have no key


@triton.constexpr_function
def _merging(n):
    """What to compare, in this order, to merge the first n // 2 and the last n // 2 of n."""
    pairs = [(i, i + n // 2) for i in range(n // 2)]
    distance = n // 4
    while distance > 0:
        pairs += [(i, i + distance) for i in range(n - distance) if i & distance]
        distance //= 2
    return tuple(pairs)


@triton.constexpr_function
def _sorting(n):
    """What to compare, in this order, to sort n."""
    if n == 1:
        return ()
    half = _sorting(n // 2)
    return half + tuple((i + n // 2, j + n // 2) for i, j in half) + _merging(n)


@triton.jit
def _in_order(numbers, pairs: tl.constexpr):
    """A tuple after the numbers at these pairs of places have been put in order."""
    for p in tl.static_range(len(pairs)):
        numbers = (
            numbers[: pairs[p][0]]
            + (tl.minimum(numbers[pairs[p][0]], numbers[pairs[p][1]]),)
            + numbers[pairs[p][0] + 1 : pairs[p][1]]
            + (tl.maximum(numbers[pairs[p][0]], numbers[pairs[p][1]]),)
            + numbers[pairs[p][1] + 1 :]
        )
    return numbers


@triton.jit
def _keys(ids):
    """The keys of rows in ascending order, a tuple of as many as there are ids in theirs."""
    ids = _in_order(ids, _sorting(len(ids)))
    last = ids[0]
    keys = (last,)
    for i in tl.static_range(1, len(ids)):
        last = tl.maximum(ids[i], last + 2)  # the id's own key, or the next one of equal ids
        keys = keys + (last,)
    return keys


@triton.jit
def _n_shared(some, others):
    """How many keys rows share with others."""
    keys = _in_order(some + others, _merging(2 * len(some)))
    # Keys are even: of two neighbours, 2 if they differ.
    steps = tl.zeros_like(keys[0])
    for i in tl.static_range(1, len(keys)):
        steps += tl.minimum(keys[i] - keys[i - 1], 2)
    return len(keys) - 1 - (steps >> 1).to(tl.int32)


@triton.jit
def _rows_apart(tile):
    """The rows of a tile (n, columns): a tuple of n tensors (columns,)."""
    N: tl.constexpr = tile.shape[0]
    COLUMNS: tl.constexpr = tile.shape[1]
    if N == 1:
        rows = (tl.reshape(tile, (COLUMNS,)),)
    else:
        a, b = tl.split(tl.permute(tl.reshape(tile, (2, N // 2, COLUMNS)), (1, 2, 0)))
        rows = _rows_apart(a) + _rows_apart(b)
    return rows


@triton.jit
def _ids(ids_ptr, begin, lens, FILL: tl.constexpr, BLOCK: tl.constexpr):
    """The ids of rows, shifted, a tuple of BLOCK; whether some have no key."""
    places = tl.arange(0, BLOCK)[:, None]
    inside = places < lens[None, :]
    ids = tl.load((ids_ptr + begin)[None, :] + places, mask=inside, other=FILL)
    beyond = tl.reshape(ids, (BLOCK * begin.shape[0],)) & ~(_ID_BITS | FILL)
    return _rows_apart(ids.to(tl.uint32) << _COPIES), tl.reduce_or(beyond, 0) != 0


@triton.jit
def _n_shared_of_any(
    prediction_ids_ptr, begin, lens, reference_ids_ptr, reference_begin, reference_lens
):
    """How many ids two rows share, whatever these are: all are compared with all.

    An id of the reference counts if the prediction has more copies than came before it.
    """
    counts = tl.zeros(lens.shape, tl.int32)
    for first in range(0, tl.max(tl.where(lens > 0, reference_lens, 0), 0), _CHUNK):
        places = first + tl.arange(0, _CHUNK)[:, None]
        inside = places < reference_lens[None, :]
        tile_ptr = (reference_ids_ptr + reference_begin)[None, :] + places
        tile = tl.load(tile_ptr, mask=inside, other=0)
        copies = tl.zeros(tile.shape, tl.int32)
        for at in range(0, tl.max(lens, 0)):
            ids = tl.load(prediction_ids_ptr + begin + at, mask=at < lens, other=0)
            copies += ((ids[None, :] == tile) & (at < lens)[None, :]).to(tl.int32)
        for at in range(0, first + _CHUNK):
            is_id = at < reference_lens
            ids = tl.load(reference_ids_ptr + reference_begin + at, mask=is_id, other=0)
            copies -= ((ids[None, :] == tile) & (at < places)).to(tl.int32)
        counts += tl.sum((inside & (copies > 0)).to(tl.int32), 0)
    return counts


@triton.jit(do_not_specialize=["n_references", "n_each", "n_per_program", "longest"])
def sorted_overlap_kernel(
    prediction_ids_ptr,
    prediction_offsets_ptr,
    reference_ids_ptr,
    reference_offsets_ptr,
    counts_ptr,
    scores_ptr,
    n_references,
    n_each,
    n_per_program,
    longest,
    IS_MATRIX: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """ROWS references, a thread each, against n_per_program of its n_each predictions in sequence.

    Pairs whose longer row has more than `longest` ids, at most BLOCK, are left to another launch.
    """
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    is_row = rows < n_references
    reference_begin, reference_lens = span(reference_offsets_ptr, rows, is_row)
    is_row = is_row & (reference_lens <= longest)
    reference_lens = tl.where(is_row, reference_lens, 0)
    referred, has_others = _ids(
        reference_ids_ptr, reference_begin, reference_lens, _REFERENCE_FILL, BLOCK
    )
    referred = _keys(referred)
    first = tl.program_id(1) * n_per_program
    for each in range(first, min(first + n_per_program, n_each)):
        pairs = pair_index(rows, each, n_references, n_each, IS_MATRIX)
        predictions = pairs // n_references if IS_MATRIX else pairs
        begin, lens = span(prediction_offsets_ptr, predictions, is_row)
        is_pair = is_row & (lens <= longest)
        lens = tl.where(is_pair, lens, 0)
        predicted, has_other = _ids(prediction_ids_ptr, begin, lens, _PREDICTION_FILL, BLOCK)
        if has_others | has_other:
            counts = _n_shared_of_any(
                prediction_ids_ptr, begin, lens, reference_ids_ptr, reference_begin, reference_lens
            )
        else:
            counts = _n_shared(_keys(predicted), referred)
        store_scores(counts_ptr, scores_ptr, pairs, counts, lens, reference_lens, is_pair)
