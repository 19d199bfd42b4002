# mypy: ignore-errors
"""Device code for rounding rows to 8-bit floats (e4m3)."""

import triton
import triton.language as tl


@triton.jit
def store_rounded(x, first, n, out_row, scale_row, GROUPS: tl.constexpr, WIDTH: tl.constexpr):
    """Round numbers `first` and later of a row of n, in groups of WIDTH with a scale each.

    x is (GROUPS * WIDTH,) float32, 0 past the row's end. Scales are powers of two, counted in
    integers, so that nothing but the 8-bit number is rounded.
    """
    x = tl.reshape(x, (GROUPS, WIDTH))
    largest = tl.max(tl.abs(x), axis=1)
    # The exponent that brings it to at most 448 = 1.75 * 2**8; a mantissa above that carries.
    exponent = ((largest.to(tl.int32, bitcast=True) + 0x1FFFFF) >> 23) - 8
    exponent = tl.maximum(exponent, 1)
    scale = (exponent << 23).to(tl.float32, bitcast=True)
    inverse = ((254 - exponent) << 23).to(tl.float32, bitcast=True)
    y = x * inverse[:, None]
    # Only infinity is larger; the conversion would make 448 of it.
    y = tl.where(tl.abs(y) > 448.0, float("nan"), y)
    cols = first + tl.arange(0, GROUPS * WIDTH)
    y = tl.reshape(y, (GROUPS * WIDTH,))
    tl.store(out_row + cols, y.to(tl.float8e4nv), mask=cols < n)
    at = first // WIDTH + tl.arange(0, GROUPS)
    tl.store(scale_row + at, scale, mask=at * WIDTH < n)


@triton.jit
def quantize_rows_kernel(
    x_ptr,
    out_ptr,
    scale_ptr,
    n_in,
    x_stride,
    out_stride,
    scale_stride,
    GROUPS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """One row, read whole before any of it is written: x and out may share a row's memory."""
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, GROUPS * WIDTH)
    x = tl.load(x_ptr + row * x_stride + cols, mask=cols < n_in, other=0.0).to(tl.float32)
    # The largest of a group may be found within one warp, while others have still to read.
    tl.debug_barrier()
    out_row = out_ptr + row * out_stride
    store_rounded(x, 0, n_in, out_row, scale_ptr + row * scale_stride, GROUPS, WIDTH)
