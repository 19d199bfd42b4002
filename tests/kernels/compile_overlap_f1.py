"""Shipped configurations of the id overlap."""

from compile_case import SMS, CompileCase

from flipfast_kernels.jit.overlap_f1 import overlap_kernel, scores_kernel, weights_kernel
from flipfast_kernels.overlap_f1 import tile_for

NUMBERS = ("n_references", "n_each", "n_per_program", "shortest", "longest")


def cases():
    for sm in SMS:
        yield from overlap(sm, "int32", 64)
        yield from overlap(sm, "int32", 4096)
        yield CompileCase(
            "overlap_f1_scores",
            scores_kernel,
            sm,
            {"BLOCK": 128},
            {
                **dict.fromkeys(("prediction_offsets_ptr", "reference_offsets_ptr"), "*i32"),
                "counts_ptr": "*i32",
                "scores_ptr": "*fp64",
                **dict.fromkeys(("n_pairs", "n_predictions_each", "n_references_each"), "i32"),
                "n_references": "i32",
            },
            {"enable_fp_fusion": False, "num_warps": 4},
        )
    yield from overlap(90, "int64", 64)


def overlap(sm, dtype, longest):
    """Both kernels, for rows of up to `longest` ids."""
    ids = {"int32": "*i32", "int64": "*i64"}[dtype]
    tile = tile_for(longest)
    sizes = {"ROWS": tile.rows, "BLOCK": tile.block, "LANES": tile.lanes, "CHUNK": tile.chunk}
    options = {"num_warps": tile.warps, "enable_fp_fusion": False}
    yield CompileCase(
        f"overlap_f1-{dtype}-{longest}",
        overlap_kernel,
        sm,
        {"IS_MATRIX": False, "ONE_BLOCK": longest <= tile.block, **sizes},
        {
            **dict.fromkeys(("prediction_ids_ptr", "reference_ids_ptr"), ids),
            **dict.fromkeys(("prediction_offsets_ptr", "reference_offsets_ptr"), "*i32"),
            "weights_ptr": "*fp32",
            "counts_ptr": "*i32",
            **dict.fromkeys(NUMBERS, "i32"),
        },
        options,
    )
    yield CompileCase(
        f"overlap_f1_weights-{dtype}-{longest}",
        weights_kernel,
        sm,
        sizes,
        {
            "ids_ptr": ids,
            "offsets_ptr": "*i32",
            "weights_ptr": "*fp32",
            **dict.fromkeys(("n_rows", "shortest", "longest"), "i32"),
        },
        options,
    )
