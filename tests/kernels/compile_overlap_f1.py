"""Shipped configurations of the id overlap."""

from compile_case import SMS, CompileCase

from flipfast_kernels.jit.overlap_f1 import overlap_kernel, weights_kernel
from flipfast_kernels.overlap_f1 import tile_for

NUMBERS = ("n_references", "n_each", "n_per_program", "shortest", "longest")


def cases():
    for sm in SMS:
        yield overlap(sm, "int32", 64)
        yield overlap(sm, "int32", 4096)
        yield weights(sm, "int32", 4096)
    yield overlap(90, "int64", 64)
    yield overlap(90, "int32", 1024)


def overlap(sm, dtype, longest):
    """For rows of up to `longest` ids."""
    sizes, ids, options = launch(dtype, longest)
    one_block = longest <= sizes["BLOCK"]
    constants = {"IS_MATRIX": False, "ONE_BLOCK": one_block, **sizes}
    types = {
        **dict.fromkeys(("prediction_ids_ptr", "reference_ids_ptr"), ids),
        **dict.fromkeys(("prediction_offsets_ptr", "reference_offsets_ptr"), "*i32"),
        "counts_ptr": "*i32",
        "scores_ptr": "*fp64",
        **dict.fromkeys(NUMBERS, "i32"),
    }
    if one_block:
        constants["weights_ptr"] = None
    else:
        types["weights_ptr"] = "*fp32"
    name = f"overlap_f1-{dtype}-{longest}"
    # One number, for the branch of ids beyond 2**31 - 2**24, stands on the stack at 1024.
    most_stack = 8 if longest == 1024 else 0
    return CompileCase(name, overlap_kernel, sm, constants, types, options, most_stack)


def weights(sm, dtype, longest):
    """The copies of every id in rows of more than one block."""
    sizes, ids, options = launch(dtype, longest)
    types = {
        "ids_ptr": ids,
        "offsets_ptr": "*i32",
        "weights_ptr": "*fp32",
        **dict.fromkeys(("n_rows", "shortest", "longest"), "i32"),
    }
    return CompileCase(
        f"overlap_f1_weights-{dtype}-{longest}", weights_kernel, sm, sizes, types, options
    )


def launch(dtype, longest):
    """Sizes of a tile, type of the ids, options."""
    tile = tile_for(longest)
    sizes = {"ROWS": tile.rows, "BLOCK": tile.block, "LANES": tile.lanes, "CHUNK": tile.chunk}
    ids = {"int32": "*i32", "int64": "*i64"}[dtype]
    return sizes, ids, {"num_warps": tile.warps, "enable_fp_fusion": False}
