"""Shipped configurations of the head."""

from compile_case import SMS, CompileCase, short
from torch import bfloat16, float32

from flipfast_kernels.gemm import linear_configs
from flipfast_kernels.jit.lm_head import head_row_kernel, head_tile_kernel
from flipfast_kernels.lm_head import row_warps

INTS = ("n_rows", "n_out", "n_in", "n_tiles", "x_stride", "weight_stride")
GIVEN = {"targets_ptr": "*i64", "best_ptr": "*i64", **dict.fromkeys(INTS, "i32"), "cap": "fp32"}


def cases():
    for sm in SMS:
        for config in dict.fromkeys(linear_configs(151936, 1024, bfloat16, sm)):
            yield tile(sm, bfloat16, config, sums=False)
            yield tile(sm, bfloat16, config, sums=True)
        yield row(sm)
    yield tile(90, float32, linear_configs(151936, 1024, float32, 90)[0], sums=True)


def tile(sm, dtype, config, sums):
    flags = {"HAS_SUMS": sums, "HAS_TARGETS": sums, "HAS_CAP": False}
    absent = {} if sums else {"targets_ptr": None, "target_ptr": None}
    constants = {
        **flags,
        **absent,
        "EVEN_K": True,
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "BLOCK_K": config.block_k,
        "GROUP_M": config.group_m,
    }
    given = types(head_tile_kernel, constants)
    given |= dict.fromkeys(("x_ptr", "weight_ptr"), f"*{short(dtype)}")
    what = "sums" if sums else "best"
    return CompileCase(
        f"lm_head-{short(dtype)}-{what}-m{config.block_m}",
        head_tile_kernel,
        sm,
        constants,
        given,
        {"num_warps": config.num_warps, "num_stages": config.num_stages},
        most_stack=1024 if dtype == float32 else 0,
    )


def row(sm):
    constants = {"HAS_SUMS": True, "HAS_TARGETS": True, "HAS_CAP": False, "BLOCK": 2048}
    given = types(head_row_kernel, constants)
    fixed = {"enable_fp_fusion": False, "num_warps": row_warps(2048)}
    return CompileCase("lm_head_row", head_row_kernel, sm, constants, given, fixed)


def types(kernel, constants):
    rest = [arg for arg in kernel.arg_names if arg not in constants]
    return {arg: GIVEN.get(arg, "*fp32") for arg in rest}
