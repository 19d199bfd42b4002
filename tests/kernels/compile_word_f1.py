"""Shipped configurations of the word F1 from token ids."""

from compile_case import SMS, CompileCase

from flipfast_kernels.jit.word_f1 import word_f1_kernel
from flipfast_kernels.word_f1 import word_f1_config

INTEGERS = {
    "*i64": ("ids_ptr", "records_ptr", "words_ptr", "offsets_ptr", "powers_ptr"),
    "*i32": ("lens_ptr", "begin_ptr", "end_ptr", "counts_ptr", "reference_copies_ptr"),
    "i32": ("ids_stride", "table_size", "samples"),
}


def cases():
    for sm in SMS:
        yield case(sm, 512, "json")
    yield case(90, 31, "json")
    yield case(90, 63, "plain")


def case(sm, width, mode):
    config = word_f1_config(width)
    has_span = mode == "json"
    types = {name: kind for kind, names in INTEGERS.items() for name in names}
    types |= {
        "raw_ptr": "*u8",
        "reference_hashes_ptr": "*i64",
        "reference_offsets_ptr": "*i32",
        "reference_n_words_ptr": "*i32",
        "scores_ptr": "*fp64",
        "decided_ptr": "*i1",
    }
    constants = {
        "HAS_SPAN": has_span,
        "HAS_ROWS": False,
        "JSON": has_span,
        "BLOCK_T": config["BLOCK_T"],
        "BLOCK_R": config["BLOCK_R"],
        "reference_rows_ptr": None,
    }
    if not has_span:
        constants |= {"begin_ptr": None, "end_ptr": None}
        types = {name: kind for name, kind in types.items() if name not in constants}
    return CompileCase(
        f"word_f1-{mode}-t{config['BLOCK_T']}",
        word_f1_kernel,
        sm,
        constants,
        types,
        {"num_warps": config["num_warps"], "enable_fp_fusion": False},
    )
