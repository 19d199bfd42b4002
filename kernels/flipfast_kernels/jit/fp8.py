# mypy: ignore-errors
"""Device code for products of 8-bit floats (e4m3), and for rounding rows to them."""

import triton
import triton.language as tl

from flipfast_kernels.jit.gemm import place_of


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


@triton.jit
def _x_scales(ptr, rows, n_rows, stride, group):
    """Scales of some rows in a group; rows past the end read the last one's again."""
    return tl.load(ptr + tl.minimum(rows, n_rows - 1).to(tl.int64) * stride + group)


@triton.jit
def _weight_scales(ptr, cols, n_out, stride, group):
    """The same of the weight's rows, which lie side by side."""
    return tl.load(ptr + group.to(tl.int64) * stride + tl.minimum(cols, n_out - 1))


# One binary for any number of rows.
@triton.jit(do_not_specialize=["n_rows"])
def linear_fp8_kernel(
    x_ptr,
    x_scale_ptr,
    weight_ptr,
    weight_scale_ptr,
    bias_ptr,
    out_ptr,
    n_rows,
    n_out,
    n_in,
    x_stride,
    x_scale_stride,
    weight_stride,
    weight_scale_stride,
    out_stride,
    GROUPED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """One tile of the scaled product; with GROUPED, every BLOCK_K numbers have scales."""
    tile_m, tile_n = place_of(tl.program_id(0), n_rows, n_out, BLOCK_M, BLOCK_N, GROUP_M)
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    ks = tl.arange(0, BLOCK_K)
    read_rows = tl.minimum(rows, n_rows - 1).to(tl.int64)
    read_cols = tl.minimum(cols, n_out - 1).to(tl.int64)
    x_ptrs = x_ptr + read_rows[:, None] * x_stride + ks[None, :]
    w_ptrs = weight_ptr + read_cols[None, :] * weight_stride + ks[:, None]

    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, n_in, BLOCK_K):
        if EVEN_K:
            x = tl.load(x_ptrs)
            w = tl.load(w_ptrs)
        else:
            x = tl.load(x_ptrs, mask=ks[None, :] < n_in - k, other=0.0)
            w = tl.load(w_ptrs, mask=ks[:, None] < n_in - k, other=0.0)
        if GROUPED:
            group = k // BLOCK_K
            x_scale = _x_scales(x_scale_ptr, rows, n_rows, x_scale_stride, group)
            w_scale = _weight_scales(weight_scale_ptr, cols, n_out, weight_scale_stride, group)
            acc = tl.fma(tl.dot(x, w), x_scale[:, None] * w_scale[None, :], acc)
        else:
            acc = tl.dot(x, w, acc)
        x_ptrs += BLOCK_K
        w_ptrs += BLOCK_K
    if not GROUPED:
        x_scale = tl.load(x_scale_ptr + read_rows * x_scale_stride)
        acc *= x_scale[:, None] * tl.load(weight_scale_ptr + read_cols)[None, :]
    if HAS_BIAS:
        acc += tl.load(bias_ptr + read_cols).to(tl.float32)[None, :]
    out_ptrs = out_ptr + rows.to(tl.int64)[:, None] * out_stride + cols[None, :]
    inside = (rows < n_rows)[:, None] & (cols < n_out)[None, :]
    tl.store(out_ptrs, acc.to(out_ptr.dtype.element_ty), mask=inside)


# One binary for all sizes: what they are divisible by changes nothing here.
@triton.jit(do_not_specialize=["n_rows", "n_out", "n_in", "x_scale_stride", "weight_scale_stride"])
def linear_fp8_tma_kernel(
    x,
    x_scale_ptr,
    weight,
    weight_scale_ptr,
    bias_ptr,
    out,
    n_rows,
    n_out,
    n_in,
    x_scale_stride,
    weight_scale_stride,
    GROUPED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """Every tl.num_programs(0)th tile, as `linear_fp8_kernel` adds; see `linear_tma_kernel`."""
    n_tiles = tl.cdiv(n_rows, BLOCK_M) * tl.cdiv(n_out, BLOCK_N)
    # With groups, the registers have no room for what one flat loop would carry along.
    for tile in tl.range(tl.program_id(0), n_tiles, tl.num_programs(0), flatten=not GROUPED):
        tile_m, tile_n = place_of(tile, n_rows, n_out, BLOCK_M, BLOCK_N, GROUP_M)
        row = tile_m * BLOCK_M
        col = tile_n * BLOCK_N
        rows = row + tl.arange(0, BLOCK_M)
        cols = col + tl.arange(0, BLOCK_N)
        acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        for k in range(0, n_in, BLOCK_K):
            if GROUPED:
                group = k // BLOCK_K
                x_scale = _x_scales(x_scale_ptr, rows, n_rows, x_scale_stride, group)
                w_scale = _weight_scales(weight_scale_ptr, cols, n_out, weight_scale_stride, group)
                part = tl.dot(x.load([row, k]), tl.trans(weight.load([col, k])))
                acc = tl.fma(part, x_scale[:, None] * w_scale[None, :], acc)
            else:
                acc = tl.dot(x.load([row, k]), tl.trans(weight.load([col, k])), acc)
        read_cols = tl.minimum(cols, n_out - 1)
        if not GROUPED:
            x_scale = _x_scales(x_scale_ptr, rows, n_rows, x_scale_stride, 0)
            acc *= x_scale[:, None] * tl.load(weight_scale_ptr + read_cols)[None, :]
        if HAS_BIAS:
            acc += tl.load(bias_ptr + read_cols).to(tl.float32)[None, :]
        out.store([row, col], acc.to(out.dtype))
