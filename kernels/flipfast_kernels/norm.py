"""Root-mean-square norm of rows, optionally fused with the residual addition before it."""

from __future__ import annotations

import torch

from flipfast_kernels.fp8_rows import Fp8Rows, check_rounded, parts
from flipfast_kernels.jit.norm import rms_norm_kernel
from flipfast_kernels.launch import (
    check_device,
    check_float,
    check_last_stride,
    check_shape,
    power_of_two,
)

_WIDEST = 65536  # numbers per row; one program holds a row in registers


def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    out: torch.Tensor | Fp8Rows | None = None,
    residual: torch.Tensor | None = None,
    *,
    validate: bool = True,
) -> torch.Tensor | Fp8Rows:
    """x / sqrt(mean(x**2) + eps) * weight per row, in float32 (Zhang and Sennrich 2019).

    With a residual, x is first added to it in place, and the norm is taken of the rounded sum. One
    program reduces one row, in an order set by the row length alone: a row's bits do not depend on
    the other rows.

    Bytes: each read or write of x, residual and out once, so at least (2 or 4) * M * D * itemsize /
    4.8e12 seconds on an H200 (4.8 TB/s per the datasheet).

    Args:
        x: (M, D), bfloat16, float16 or float32; any row stride.
        weight: (D,) float32.
        eps: added to the mean square.
        out: (M, D), any of these dtypes, may be x, or 8-bit floats, may be within x, to which the
            float32 result is rounded as by `quantize_rows`; None allocates one like x.
        residual: (M, D), any of these dtypes, not x; None for none.
        validate: check the tensors, which takes the host 4 to 8 microseconds. Unchecked, wrong ones
            make the kernel read or write memory that is not theirs.

    Returns:
        out.

    Raises:
        ValueError: dtypes, shapes, strides or devices that do not fit, or a D above 65536.
    """
    if out is None:
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    numbers, scales = parts(out)
    if validate:
        _check(x, weight, out, residual)
    n_rows, dim = x.shape
    if n_rows == 0:
        return out
    block = power_of_two(dim)
    rms_norm_kernel[(n_rows,)](
        x,
        residual,
        weight,
        numbers,
        scales,
        dim,
        eps,
        x.stride(0),
        0 if residual is None else residual.stride(0),
        numbers.stride(0),
        0 if scales is None else scales.stride(0),
        HAS_RESIDUAL=residual is not None,
        GROUPS=out.groups_in(block) if isinstance(out, Fp8Rows) else 0,
        BLOCK=block,
        enable_fp_fusion=False,
        num_warps=min(max(block // 512, 1), 16),
    )
    return out


def rms_norm_ref(
    x: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    out: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """Reference for `rms_norm`: computed in float64 and rounded at the end."""
    wide = x.double()
    if residual is not None:
        wide = residual.copy_(residual.double() + wide).double()
    scale = (wide.square().mean(dim=1, keepdim=True) + eps).rsqrt()
    result = wide * scale * weight.double()
    return result.to(x.dtype) if out is None else out.copy_(result)


def _check(
    x: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor | Fp8Rows,
    residual: torch.Tensor | None,
) -> None:
    check_float(x=x, residual=residual)
    if x.dim() != 2 or not 0 < x.shape[1] <= _WIDEST:
        raise ValueError(f"x has shape {tuple(x.shape)}: expected rows of 1 to {_WIDEST} numbers")
    check_last_stride("x", x)
    check_shape("weight", weight, (x.shape[1],))
    if weight.dtype != torch.float32:
        raise ValueError(f"weight is {weight.dtype}: pass float32")
    check_rounded("out", out, tuple(x.shape))
    if residual is not None:
        check_shape("residual", residual, tuple(x.shape))
    numbers, scales = parts(out)
    check_device(rms_norm_kernel, x=x, weight=weight, out=numbers, scales=scales, residual=residual)
