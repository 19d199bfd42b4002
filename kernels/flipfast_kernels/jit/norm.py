# mypy: ignore-errors
"""Device code for the root-mean-square norm."""

import triton
import triton.language as tl

from flipfast_kernels.jit.fp8_rows import store_rounded


@triton.jit
def rms_norm_kernel(
    x_ptr,
    residual_ptr,
    weight_ptr,
    out_ptr,
    scale_ptr,
    dim,
    eps,
    x_stride,
    residual_stride,
    out_stride,
    scale_stride,
    HAS_RESIDUAL: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One row, read once and reduced by one program in an order set by BLOCK alone.

    GROUPS are those of 8-bit floats; 0 for other results.
    """
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    inside = cols < dim
    x = tl.load(x_ptr + row * x_stride + cols, mask=inside, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        residual_ptrs = residual_ptr + row * residual_stride + cols
        total = tl.load(residual_ptrs, mask=inside, other=0.0).to(tl.float32) + x
        # Norm the rounded sum, which is what the next layer will read.
        rounded = total.to(residual_ptr.dtype.element_ty)
        tl.store(residual_ptrs, rounded, mask=inside)
        x = rounded.to(tl.float32)
    weight = tl.load(weight_ptr + cols, mask=inside, other=0.0)
    mean_square = tl.sum(x * x, axis=0) / dim
    out = x * tl.rsqrt(mean_square + eps) * weight
    out_row = out_ptr + row * out_stride
    if GROUPS:
        scales = scale_ptr + row * scale_stride
        store_rounded(out, 0, dim, out_row, scales, GROUPS, BLOCK // GROUPS)
    else:
        tl.store(out_row + cols, out.to(out_ptr.dtype.element_ty), mask=inside)
