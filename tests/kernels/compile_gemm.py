"""Shipped configurations of the matrix product."""

from compile_case import SMS, CompileCase, short
from torch import bfloat16, float32

from flipfast_kernels.gemm import linear_configs
from flipfast_kernels.jit.gemm import linear_kernel

INTS = ("n_rows", "n_out", "n_in", "x_stride", "weight_stride", "out_stride")


def cases():
    for sm in SMS:
        for n_out in (4096, 1024):
            for config in dict.fromkeys(linear_configs(n_out, 1024, bfloat16, sm)):
                yield case(sm, bfloat16, config)
    yield case(90, float32, linear_configs(1024, 1024, float32, 90)[0])


def case(sm, dtype, config):
    pointers = dict.fromkeys(("x_ptr", "weight_ptr", "out_ptr"), f"*{short(dtype)}")
    return CompileCase(
        f"gemm-{short(dtype)}-n{config.block_n}-m{config.block_m}",
        linear_kernel,
        sm,
        {
            "bias_ptr": None,
            "HAS_BIAS": False,
            "EVEN_K": True,
            "BLOCK_M": config.block_m,
            "BLOCK_N": config.block_n,
            "BLOCK_K": config.block_k,
            "GROUP_M": config.group_m,
        },
        {**pointers, **dict.fromkeys(INTS, "i32")},
        {"num_warps": config.num_warps, "num_stages": config.num_stages},
    )
