# mypy: ignore-errors
"""Device code for the gated activation."""

import triton
import triton.language as tl

from flipfast_kernels.jit.fp8_rows import store_rounded


@triton.jit
def gated_kernel(
    gate_up_ptr,
    out_ptr,
    scale_ptr,
    dim,
    gate_up_stride,
    out_stride,
    scale_stride,
    GELU: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """BLOCK outputs of one row; a row's blocks are adjacent in the grid, as in memory.

    GROUPS are those of 8-bit floats in a block; 0 for other results.
    """
    blocks = tl.cdiv(dim, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    first = tl.program_id(0) % blocks * BLOCK
    cols = first + tl.arange(0, BLOCK)
    inside = cols < dim
    gates = gate_up_ptr + row * gate_up_stride + cols
    gate = tl.load(gates, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gates + dim, mask=inside, other=0.0).to(tl.float32)
    if GELU:
        # (1 + tanh(y)) / 2 = 1 / (1 + exp(-2y)), which keeps precision where tanh is near -1.
        cubed = gate * gate * gate
        steep = 1.5957691216057308 * (gate + 0.044715 * cubed)  # 2 sqrt(2 / pi)
    else:
        steep = gate
    out = gate / (1.0 + tl.exp(-steep)) * up
    out_row = out_ptr + row * out_stride
    if GROUPS:
        scales = scale_ptr + row * scale_stride
        store_rounded(out, first, dim, out_row, scales, GROUPS, BLOCK // GROUPS)
    else:
        tl.store(out_row + cols, out.to(out_ptr.dtype.element_ty), mask=inside)
