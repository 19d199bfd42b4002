"""Shipped configuration of the norm."""

from compile_case import SMS, CompileCase

from flipfast_kernels.jit.norm import rms_norm_kernel


def cases():
    for sm in SMS:
        yield CompileCase(
            "norm",
            rms_norm_kernel,
            sm,
            {"HAS_RESIDUAL": True, "BLOCK": 1024},
            {
                **dict.fromkeys(("x_ptr", "residual_ptr", "out_ptr"), "*bf16"),
                "weight_ptr": "*fp32",
                "eps": "fp32",
                **dict.fromkeys(("dim", "x_stride", "residual_stride", "out_stride"), "i32"),
            },
            {"enable_fp_fusion": False, "num_warps": 2},
        )
