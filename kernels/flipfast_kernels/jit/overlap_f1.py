# mypy: ignore-errors
"""Device code for the id overlap: every id of one row against every id of the other."""

import triton
import triton.language as tl

# An id in [0, _FLOATS) is represented by the float whose bits are id + _NORMAL: none of these is
# NaN or subnormal, which some settings flush to 0. Floats, because comparing them gives a 1.0 to
# add, which comparing integers does not.
_NORMAL = tl.constexpr(0x00800000)
_FLOATS = tl.constexpr(0x7F800000 - 0x00800000)
_NAN = tl.constexpr(0x7FC00000)  # equal to nothing, itself included


@triton.jit
def span(offsets_ptr, rows, is_row):
    """Where rows begin, int64, and their lengths, int32; empty where is_row is false."""
    begin = tl.load(offsets_ptr + rows, mask=is_row, other=0).to(tl.int64)
    end = tl.load(offsets_ptr + rows + 1, mask=is_row, other=0).to(tl.int64)
    return begin, (end - begin).to(tl.int32)


@triton.jit
def _has_float(ids):
    return (ids >= 0) & (ids < _FLOATS)


@triton.jit
def _floats(ids, inside):
    """The floats that represent ids; NaN for ids that have none, and outside the row."""
    bits = tl.where(inside & _has_float(ids), ids.to(tl.int32) + _NORMAL, _NAN)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _columns(offsets_ptr, rows, n_rows, ROWS: tl.constexpr, LANES: tl.constexpr):
    """The columns of a tile, LANES per row: row index, whether it exists, its begin and length."""
    column = tl.arange(0, ROWS * LANES) // LANES
    its_row = rows + column
    is_row = its_row < n_rows
    begin, lens = span(offsets_ptr, its_row, is_row)
    return its_row, is_row, begin, lens


@triton.jit
def _tile(ids_ptr, begin, lens, first, BLOCK: tl.constexpr, LANES: tl.constexpr):
    """BLOCK ids of each row from index `first` on: mask of valid entries, their indices, the ids.

    With the shape (BLOCK // LANES, columns), LANES threads share a row, and each holds all of the
    first dimension in registers.
    """
    lane = tl.arange(0, begin.shape[0]) % LANES
    places = first + tl.arange(0, BLOCK // LANES)[:, None] * LANES + lane[None, :]
    inside = places < lens[None, :]
    entries = begin[None, :] + places
    return inside, entries, tl.load(ids_ptr + entries, mask=inside, other=0)


@triton.jit
def _tile_floats(ids_ptr, begin, lens, first, BLOCK: tl.constexpr, LANES: tl.constexpr):
    """The floats of a tile, and whether it has ids without a float."""
    inside, _, ids = _tile(ids_ptr, begin, lens, first, BLOCK, LANES)
    return _floats(ids, inside), tl.max((inside & ~_has_float(ids)).to(tl.int32)) > 0


@triton.jit
def _copies(floats, ids_ptr, begin, lens, CHUNK: tl.constexpr):
    """How often each float of a tile occurs in its row of `ids_ptr`; begin and lens are per row."""
    N_STEPS: tl.constexpr = floats.shape[0]
    ROWS: tl.constexpr = begin.shape[0]
    LANES: tl.constexpr = floats.shape[1] // ROWS
    by_row = tl.reshape(floats, (N_STEPS, ROWS, LANES))
    copies = tl.zeros((N_STEPS, ROWS, LANES), tl.float32)
    for at in range(0, tl.max(lens, 0), CHUNK):
        places = at + tl.arange(0, CHUNK)[:, None]
        inside = places < lens[None, :]
        ids = tl.load(ids_ptr + begin[None, :] + places, mask=inside, other=0)
        same = _floats(ids, inside)[:, None, :, None] == by_row[None]
        copies += tl.sum(tl.where(same, 1.0, 0.0), 0)
    return tl.reshape(copies, (N_STEPS, ROWS * LANES))


@triton.jit
def _other_copies(tile, ids_ptr, begin, lens):
    """As `_copies`, for the ids of a tile without a float; begin and lens are per column."""
    inside, _, tile_ids = tile
    tile_ids = tl.where(inside & ~_has_float(tile_ids), tile_ids, 1)
    copies = tl.zeros(tile_ids.shape, tl.int32)
    for at in range(0, tl.max(lens, 0)):
        ids = tl.load(ids_ptr + begin + at, mask=at < lens, other=0)
        ids = tl.where(_has_float(ids), 0, ids)  # equals neither 1 nor an id without float
        copies += (ids[None, :] == tile_ids).to(tl.int32)
    return copies.to(tl.float32)


@triton.jit
def _weights(
    floats,
    has_others,
    ids_ptr,
    begin,
    lens,
    tile_begin,
    tile_lens,
    first,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """1 / (copies of the id in its own row) for each id of a tile; 1 outside the rows."""
    LANES: tl.constexpr = floats.shape[1] // begin.shape[0]
    copies = _copies(floats, ids_ptr, begin, lens, CHUNK)
    if has_others:
        tile = _tile(ids_ptr, tile_begin, tile_lens, first, BLOCK, LANES)
        copies += _other_copies(tile, ids_ptr, tile_begin, tile_lens)
    return 1.0 / tl.maximum(copies, 1.0)


@triton.jit
def weights_kernel(
    ids_ptr,
    offsets_ptr,
    weights_ptr,
    n_rows,
    shortest,
    longest,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    LANES: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """1 / (copies of the id in its row), for BLOCK ids of ROWS rows with more than BLOCK ids.

    Rows of fewer than `shortest` or more than `longest` ids are left to another launch.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS
    rows = row + tl.arange(0, ROWS)
    begin, lens = span(offsets_ptr, rows, rows < n_rows)
    lens = tl.where((lens >= shortest) & (lens <= longest), lens, 0)
    first = tl.program_id(1) * BLOCK
    if first < tl.max(lens, 0):
        _, _, tile_begin, tile_lens = _columns(offsets_ptr, row, n_rows, ROWS, LANES)
        tile_lens = tl.where((tile_lens >= shortest) & (tile_lens <= longest), tile_lens, 0)
        floats, has_others = _tile_floats(ids_ptr, tile_begin, tile_lens, first, BLOCK, LANES)
        weights = _weights(
            floats, has_others, ids_ptr, begin, lens, tile_begin, tile_lens, first, BLOCK, CHUNK
        )
        inside, entries, _ = _tile(ids_ptr, tile_begin, tile_lens, first, BLOCK, LANES)
        tl.store(weights_ptr + entries, weights, mask=inside)


@triton.jit
def pair_index(references, each, n_references, n_each, IS_MATRIX: tl.constexpr):
    """Index of the result of a reference with its prediction number `each`."""
    if IS_MATRIX:
        pairs = (tl.zeros_like(references) + each) * n_references + references
    else:
        pairs = references * n_each + each
    return pairs


@triton.jit
def store_scores(counts_ptr, scores_ptr, pairs, counts, lens, reference_lens, is_pair):
    """Store counts and scores of pairs, where is_pair, from the lengths of their rows."""
    tl.store(counts_ptr + pairs, counts, mask=is_pair)
    # The published order of operations, none fused: bit-identical to Python's.
    same = counts.to(tl.float64)
    precision = same / tl.maximum(lens, 1).to(tl.float64)
    recall = same / tl.maximum(reference_lens, 1).to(tl.float64)
    both = tl.where(same > 0, precision + recall, 1.0)
    tl.store(scores_ptr + 3 * pairs, (2.0 * precision * recall) / both, mask=is_pair)
    tl.store(scores_ptr + 3 * pairs + 1, precision, mask=is_pair)
    tl.store(scores_ptr + 3 * pairs + 2, recall, mask=is_pair)


@triton.jit
def overlap_kernel(
    prediction_ids_ptr,
    prediction_offsets_ptr,
    reference_ids_ptr,
    reference_offsets_ptr,
    weights_ptr,
    counts_ptr,
    scores_ptr,
    n_references,
    n_each,
    n_per_program,
    shortest,
    longest,
    IS_MATRIX: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    LANES: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """ROWS references, each against n_per_program of its n_each predictions in sequence.

    An id with c copies in the prediction and r in the reference adds min(c / r, 1) at each of the
    r: the sum is min(c, r) up to rounding errors far below a half, and rounds to it.

    Pairs whose longer row has fewer than `shortest` or more than `longest` ids are left to another
    launch. ONE_BLOCK: no reference here is longer than BLOCK, so references are read, and their
    copies counted, before the loop; weights_ptr is not used.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS
    rows = row + tl.arange(0, ROWS)
    reference_begin, reference_lens = span(reference_offsets_ptr, rows, rows < n_references)
    its_row, is_row, tile_begin, tile_lens = _columns(
        reference_offsets_ptr, row, n_references, ROWS, LANES
    )
    tile_lens = tl.where(tile_lens <= longest, tile_lens, 0)
    if ONE_BLOCK:
        floats, has_others = _tile_floats(reference_ids_ptr, tile_begin, tile_lens, 0, BLOCK, LANES)
        weights = _weights(
            floats,
            has_others,
            reference_ids_ptr,
            reference_begin,
            tl.where(reference_lens <= longest, reference_lens, 0),
            tile_begin,
            tile_lens,
            0,
            BLOCK,
            CHUNK,
        )
    first = tl.program_id(1) * n_per_program
    for each in range(first, min(first + n_per_program, n_each)):
        pairs = pair_index(rows, each, n_references, n_each, IS_MATRIX)
        predictions = pairs // n_references if IS_MATRIX else pairs
        begin, lens = span(prediction_offsets_ptr, predictions, rows < n_references)
        longer = tl.maximum(lens, reference_lens)
        is_pair = (rows < n_references) & (longer >= shortest) & (longer <= longest)
        lens = tl.where(is_pair, lens, 0)
        total = tl.zeros((ROWS,), tl.float32 if ONE_BLOCK else tl.float64)
        n_places = tl.max(tl.where(lens > 0, reference_lens, 0), 0)
        for at in range(0, n_places, BLOCK):
            if not ONE_BLOCK:
                floats, has_others = _tile_floats(
                    reference_ids_ptr, tile_begin, tile_lens, at, BLOCK, LANES
                )
                weights = _tile(weights_ptr, tile_begin, tile_lens, at, BLOCK, LANES)[2]
            copies = _copies(floats, prediction_ids_ptr, begin, lens, CHUNK)
            if has_others:
                tile = _tile(reference_ids_ptr, tile_begin, tile_lens, at, BLOCK, LANES)
                pair = pair_index(its_row, each, n_references, n_each, IS_MATRIX)
                its_begin, its_lens = span(
                    prediction_offsets_ptr, pair // n_references if IS_MATRIX else pair, is_row
                )
                copies += _other_copies(tile, prediction_ids_ptr, its_begin, its_lens)
            parts = tl.sum(tl.minimum(copies * weights, 1.0).to(total.dtype), 0)
            total += tl.sum(tl.reshape(parts, (ROWS, LANES)), 1)
        counts = (total + 0.5).to(tl.int32)
        store_scores(counts_ptr, scores_ptr, pairs, counts, lens, reference_lens, is_pair)
