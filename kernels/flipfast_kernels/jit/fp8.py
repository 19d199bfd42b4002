# mypy: ignore-errors
"""Device code for products of 8-bit floats (e4m3), and for rounding rows to them."""

import triton
import triton.language as tl

from flipfast_kernels.jit.gemm import place_of


# One binary for any number of rows, of which the stride of scales is one.
@triton.jit(do_not_specialize=["scale_stride"])
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
    """One row: groups of WIDTH numbers, each with the power of two that its largest one asks for.

    Scales are exponents, counted in integers, so that nothing but the 8-bit number is rounded.
    """
    row = tl.program_id(0).to(tl.int64)
    groups = tl.arange(0, GROUPS)
    cols = groups[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    inside = cols < n_in
    x = tl.load(x_ptr + row * x_stride + cols, mask=inside, other=0.0).to(tl.float32)
    largest = tl.max(tl.abs(x), axis=1)
    # The exponent that brings it to at most 448 = 1.75 * 2**8; a mantissa above that carries.
    exponent = ((largest.to(tl.int32, bitcast=True) + 0x1FFFFF) >> 23) - 8
    exponent = tl.maximum(exponent, 1)
    scale = (exponent << 23).to(tl.float32, bitcast=True)
    inverse = ((254 - exponent) << 23).to(tl.float32, bitcast=True)
    y = x * inverse[:, None]
    # Only infinity is larger; the conversion would make 448 of it.
    y = tl.where(tl.abs(y) > 448.0, float("nan"), y)
    tl.store(out_ptr + row * out_stride + cols, y.to(tl.float8e4nv), mask=inside)
    tl.store(scale_ptr + groups * scale_stride + row, scale, mask=groups * WIDTH < n_in)


@triton.jit
def _scales_of(ptr, places, n, stride, group):
    """Scales of some rows or columns in a group; those past the end read the last one again."""
    return tl.load(ptr + group.to(tl.int64) * stride + tl.minimum(places, n - 1))


# One binary for any number of rows.
@triton.jit(do_not_specialize=["n_rows", "x_scale_stride"])
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
            x_scale = _scales_of(x_scale_ptr, rows, n_rows, x_scale_stride, group)
            w_scale = _scales_of(weight_scale_ptr, cols, n_out, weight_scale_stride, group)
            acc = tl.fma(tl.dot(x, w), x_scale[:, None] * w_scale[None, :], acc)
        else:
            acc = tl.dot(x, w, acc)
        x_ptrs += BLOCK_K
        w_ptrs += BLOCK_K
    if not GROUPED:
        x_scale = tl.load(x_scale_ptr + read_rows)
        w_scale = tl.load(weight_scale_ptr + read_cols)
        acc *= x_scale[:, None] * w_scale[None, :]
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
    for tile in tl.range(tl.program_id(0), n_tiles, tl.num_programs(0), flatten=not GROUPED):
        tile_m, tile_n = place_of(tile, n_rows, n_out, BLOCK_M, BLOCK_N, GROUP_M)
        row = tile_m * BLOCK_M
        col = tile_n * BLOCK_N
        rows = tl.minimum(row + tl.arange(0, BLOCK_M), n_rows - 1)
        cols = tl.minimum(col + tl.arange(0, BLOCK_N), n_out - 1)
        acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        for k in range(0, n_in, BLOCK_K):
            if GROUPED:
                group = k // BLOCK_K
                x_scale = _scales_of(x_scale_ptr, rows, n_rows, x_scale_stride, group)
                w_scale = _scales_of(weight_scale_ptr, cols, n_out, weight_scale_stride, group)
                part = tl.dot(x.load([row, k]), tl.trans(weight.load([col, k])))
                acc = tl.fma(part, x_scale[:, None] * w_scale[None, :], acc)
            else:
                acc = tl.dot(x.load([row, k]), tl.trans(weight.load([col, k])), acc)
        if not GROUPED:
            x_scale = tl.load(x_scale_ptr + rows)
            w_scale = tl.load(weight_scale_ptr + cols)
            acc *= x_scale[:, None] * w_scale[None, :]
        if HAS_BIAS:
            acc += tl.load(bias_ptr + cols).to(tl.float32)[None, :]
        out.store([row, col], acc.to(out.dtype))
