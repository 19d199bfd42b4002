# mypy: ignore-errors
"""Device code for the gated activation."""

import triton
import triton.language as tl


@triton.jit
def gated_kernel(
    gate_up_ptr,
    out_ptr,
    dim,
    gate_up_stride,
    out_stride,
    GELU: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """BLOCK outputs of one row; a row's blocks are adjacent in the grid, as in memory."""
    blocks = tl.cdiv(dim, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    cols = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
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
    tl.store(out_ptr + row * out_stride + cols, out.to(out_ptr.dtype.element_ty), mask=inside)
