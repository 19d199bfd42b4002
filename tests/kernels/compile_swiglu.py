"""Shipped configurations of the gated activation."""

from compile_case import SMS, CompileCase

from flipfast_kernels.jit.swiglu import gated_kernel
from flipfast_kernels.swiglu import gated_tile


def cases():
    for sm in SMS:
        yield case(sm, False)
    yield case(90, True)


def case(sm, gelu):
    block, num_warps = gated_tile(3072)
    return CompileCase(
        f"gated-{'gelu' if gelu else 'silu'}",
        gated_kernel,
        sm,
        {"GELU": gelu, "BLOCK": block},
        {
            **dict.fromkeys(("gate_up_ptr", "out_ptr"), "*bf16"),
            **dict.fromkeys(("dim", "gate_up_stride", "out_stride"), "i32"),
        },
        {"enable_fp_fusion": False, "num_warps": num_warps},
    )
