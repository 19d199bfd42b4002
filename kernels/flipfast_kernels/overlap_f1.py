"""Multiset overlap and F1 of ragged rows of token or word ids."""

from __future__ import annotations

from typing import NamedTuple

import torch

from flipfast_kernels.jit.overlap_f1 import overlap_kernel, weights_kernel
from flipfast_kernels.jit.overlap_sorted import sorted_overlap_kernel
from flipfast_kernels.launch import (
    check_device,
    check_offsets,
    device_facts,
    power_of_two,
)
from flipfast_kernels.overlap_f1_checks import Mode, Out, check_out, check_rows, longest_row

_SHORT = 64  # ids; rows up to this length fit in a thread's registers
_ROWS = 32  # short references of a program: a warp's threads
_LONGEST = 4096  # ids; above, sorting is faster than comparing all with all
_MOST_EACH = 8  # predictions that a program scores in sequence against its loaded references
_GRID = 65535  # programs in a launch's second dimension


Rows = tuple[torch.Tensor, torch.Tensor]  # ids and offsets


class Tile(NamedTuple):
    """The part of its long references that a program holds: `rows` rows, `block` ids of each."""

    rows: int
    block: int
    lanes: int  # threads that share a row
    chunk: int  # prediction ids compared at a time
    warps: int


def overlap_f1(
    prediction_ids: torch.Tensor,
    prediction_offsets: torch.Tensor,
    reference_ids: torch.Tensor,
    reference_offsets: torch.Tensor,
    *,
    mode: Mode = "pairs",
    max_len: int | None = None,
    validate: bool = True,
    out: Out | None = None,
) -> Out:
    """Count the ids that two rows share, as multisets, and compute F1, precision and recall.

    The scores are those of FLIP (arXiv 2602.13551) on ids instead of words, in its order of
    operations: bit-identical to Python's. Counts are exact for all ids, and a pair's results
    depend on its own two rows only.

    Pairs of rows of up to 64 ids are a thread's: it sorts both rows in its registers, gives equal
    ids the numbers of a sequence, merges the rows and counts neighbours that are equal. That takes
    the same instructions for all ids below 2**23; a program with others compares all ids with all.
    Longer rows have a launch of their own, which compares all with all: P * R comparisons, each one
    instruction that gives 1.0 or 0.0 and one that adds it, and those of a reference with itself
    once for up to eight predictions. Above 1,024 ids, a further launch counts the references'
    copies. If any row has more than 4,096 ids, the whole batch is sorted instead.

    Bytes: ids, offsets and results once, so with int32 ids and rows of 64 ids, 10**6 pairs take at
    least 0.12 ms on an H200 (4.8 TB/s per the datasheet) with one prediction per reference and
    0.07 ms with eight. Instructions are the bound, not bytes; `python -m bench.kernel_count` reads
    them from the machine code, and docs/kernels.md has its table. None of this has been measured.

    Args:
        prediction_ids, reference_ids: int32 or int64, one dimension: the rows, concatenated.
        prediction_offsets, reference_offsets: int32 or int64 (rows + 1,): row i has the entries
            from offsets[i] to offsets[i + 1].
        mode: "pairs": N = K * M predictions, prediction i belonging to reference i // K;
            "matrix": each of N predictions with each of M references.
        max_len: upper bound on the length of every row; None reads the offsets, for which the
            host waits on CUDA.
        validate: check the offsets, for which the host waits on CUDA. Unchecked offsets must be
            right; the results of a row longer than max_len are then not written.
        out: counts and scores to overwrite; None allocates them.

    Returns:
        counts: int32 (N,), or (N, M) in mode "matrix": the size of each multiset intersection.
        scores: float64, shape (*counts.shape, 3): f1, precision, recall; 0 where the count is 0.

    Raises:
        ValueError: dtypes, shapes, strides or devices that do not fit, offsets that decrease or run
            past the end, a row longer than max_len, N not a multiple of M in mode "pairs".
    """
    prediction = prediction_ids, prediction_offsets
    reference = reference_ids, reference_offsets
    n_predictions, n_references = check_rows(*prediction, *reference, mode)
    n_each = n_predictions if mode == "matrix" else n_predictions // max(n_references, 1)
    shape = (n_predictions, n_references) if mode == "matrix" else (n_predictions,)
    out = _out(shape, prediction_ids.device) if out is None else out
    check_out(out, shape)
    check_device(
        overlap_kernel,
        prediction_ids=prediction_ids,
        prediction_offsets=prediction_offsets,
        reference_ids=reference_ids,
        reference_offsets=reference_offsets,
        counts=out[0],
        scores=out[1],
    )
    if validate:
        check_offsets("prediction_offsets", prediction_offsets, prediction_ids.shape[0])
        check_offsets("reference_offsets", reference_offsets, reference_ids.shape[0])
    if out[0].numel() == 0:
        return out
    longest = longest_row(prediction_offsets, reference_offsets, max_len, validate)
    if longest > _LONGEST:
        for here, there in zip(
            out, overlap_f1_ref(*prediction, *reference, mode=mode), strict=True
        ):
            here.copy_(there)
        return out
    _launch_short(prediction, reference, out, n_each, mode, min(longest, _SHORT))
    if longest > _SHORT:
        _launch_long(prediction, reference, out, n_each, mode, longest)
    return out


def overlap_f1_ref(
    prediction_ids: torch.Tensor,
    prediction_offsets: torch.Tensor,
    reference_ids: torch.Tensor,
    reference_offsets: torch.Tensor,
    *,
    mode: Mode = "pairs",
) -> Out:
    """Reference for `overlap_f1`, by sorting.

    Copy k of an id in a prediction, from 0, counts if the reference holds more than k. Time
    O(n log n) in the ids of the whole batch, in mode "matrix" once per reference. The host does
    not wait for the device.
    """
    n_predictions, n_references = check_rows(
        prediction_ids, prediction_offsets, reference_ids, reference_offsets, mode
    )
    prediction_offsets, reference_offsets = prediction_offsets.long(), reference_offsets.long()
    n_values = prediction_ids.shape[0] + reference_ids.shape[0] + 1
    predicted, referred = _dense(prediction_ids, reference_ids)
    # Rows are contiguous and in order, so sorting by row and id keeps each id in its row.
    predicted += _rows(prediction_offsets, predicted.shape[0]) * n_values
    referred += _rows(reference_offsets, referred.shape[0]) * n_values
    predicted, referred = predicted.sort().values, referred.sort().values
    index = torch.arange(predicted.shape[0], device=predicted.device)
    copy = index - torch.searchsorted(predicted, predicted)
    rows = predicted.div(n_values, rounding_mode="floor")
    ids = predicted - rows * n_values

    def counts_with(references: torch.Tensor | int) -> torch.Tensor:
        wanted = references * n_values + ids
        begin = torch.searchsorted(referred, wanted)
        is_shared = copy < torch.searchsorted(referred, wanted, right=True) - begin
        before = torch.nn.functional.pad(is_shared.long().cumsum(0), (1, 0))
        return (before[prediction_offsets[1:]] - before[prediction_offsets[:-1]]).int()

    prediction_lens, reference_lens = prediction_offsets.diff(), reference_offsets.diff()
    if mode == "matrix":
        columns = [counts_with(i) for i in range(n_references)]
        counts = torch.stack(columns, 1) if columns else _out((n_predictions, 0), ids.device)[0]
        return counts, _scores(counts, prediction_lens[:, None], reference_lens[None])
    n_each = n_predictions // max(n_references, 1)
    counts = counts_with(rows.div(max(n_each, 1), rounding_mode="floor"))
    return counts, _scores(counts, prediction_lens, reference_lens.repeat_interleave(n_each))


def tile_for(longest: int) -> Tile:
    """The tile for rows of up to `longest` ids, more than 64."""
    if longest <= 256:
        return Tile(rows=1, block=256, lanes=32, chunk=16, warps=1)
    return Tile(rows=1, block=1024, lanes=128, chunk=16, warps=4)


def _launch_short(
    prediction: Rows, reference: Rows, out: Out, n_each: int, mode: Mode, longest: int
) -> None:
    """Count and score the pairs whose longer row has at most `longest` ids, at most 64."""
    n_references = reference[1].shape[0] - 1
    n_groups = -(-n_references // _ROWS)
    n_per_program = _per_program(n_groups, n_each, out[0].device)
    sorted_overlap_kernel[(n_groups, -(-n_each // n_per_program))](
        *prediction,
        *reference,
        *out,
        n_references,
        n_each,
        n_per_program,
        longest,
        IS_MATRIX=mode == "matrix",
        ROWS=_ROWS,
        BLOCK=power_of_two(max(longest, 16)),
        num_warps=1,
        enable_fp_fusion=False,
    )


def _launch_long(
    prediction: Rows, reference: Rows, out: Out, n_each: int, mode: Mode, longest: int
) -> None:
    """Count and score the pairs whose longer row has more than 64 ids."""
    tile = tile_for(longest)
    one_block = longest <= tile.block
    n_references = reference[1].shape[0] - 1
    n_groups = -(-n_references // tile.rows)
    sizes = {"ROWS": tile.rows, "BLOCK": tile.block, "LANES": tile.lanes, "CHUNK": tile.chunk}
    options = {"num_warps": tile.warps, "enable_fp_fusion": False}
    weights = None
    if not one_block:
        weights = torch.empty_like(reference[0], dtype=torch.float32)
        weights_kernel[(n_groups, -(-longest // tile.block))](
            *reference, weights, n_references, _SHORT + 1, longest, **sizes, **options
        )
    n_per_program = _per_program(n_groups, n_each, out[0].device)
    overlap_kernel[(n_groups, -(-n_each // n_per_program))](
        *prediction,
        *reference,
        weights,
        *out,
        n_references,
        n_each,
        n_per_program,
        _SHORT + 1,
        longest,
        IS_MATRIX=mode == "matrix",
        ONE_BLOCK=one_block,
        **sizes,
        **options,
    )


def _per_program(n_groups: int, n_each: int, device: torch.device) -> int:
    """Predictions that a program scores in sequence against its references."""
    # Filling the device with programs has priority over reading each reference only once.
    n_programs = 4 * device_facts(device)[1]
    n = min(max(n_groups * n_each // n_programs, 1), _MOST_EACH)
    return max(n, -(-n_each // _GRID))


def _dense(*ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The ids renumbered from 0 in order, small enough to add a multiple of the row number."""
    values, order = torch.cat([x.long() for x in ids]).sort()
    is_new = torch.nn.functional.pad(values[1:] != values[:-1], (min(len(values), 1), 0))
    numbers = torch.empty_like(values).scatter_(0, order, is_new.long().cumsum(0))
    return tuple(torch.split(numbers, [x.shape[0] for x in ids]))


def _rows(offsets: torch.Tensor, n_ids: int) -> torch.Tensor:
    """The row of each entry; -1 before the first row."""
    index = torch.arange(n_ids, device=offsets.device)
    return torch.searchsorted(offsets, index, right=True) - 1


def _scores(
    counts: torch.Tensor, prediction_lens: torch.Tensor, reference_lens: torch.Tensor
) -> torch.Tensor:
    same = counts.double()
    precision = same / prediction_lens.clamp(min=1)
    recall = same / reference_lens.clamp(min=1)
    f1 = torch.where(counts > 0, (2 * precision * recall) / (precision + recall), 0.0)
    return torch.stack([f1, precision, recall], dim=-1)


def _out(shape: tuple[int, ...], device: torch.device) -> Out:
    counts = torch.empty(shape, dtype=torch.int32, device=device)
    return counts, torch.empty((*shape, 3), dtype=torch.float64, device=device)
