# mypy: ignore-errors
"""Device code for the product of 8-bit floats (e4m3)."""

import triton
import triton.language as tl

from flipfast_kernels.jit.gemm import place_of


@triton.jit
def _x_scales(ptr, rows, n_rows, stride, group):
    """Scales of some rows in a group; rows past the end read the last one's again."""
    return tl.load(ptr + tl.minimum(rows, n_rows - 1).to(tl.int64) * stride + group)


@triton.jit
def _weight_scales(ptr, cols, n_out, stride, group):
    """The same of the weight's rows, which lie side by side."""
    return tl.load(ptr + group.to(tl.int64) * stride + tl.minimum(cols, n_out - 1))


@triton.jit
def _finished(
    acc,
    x_scale_ptr,
    weight_scale_ptr,
    bias_ptr,
    rows,
    cols,
    n_rows,
    n_out,
    x_scale_stride,
    GROUPED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """Sums times the scales of whole rows, plus the bias: one rounding, whatever compiles it."""
    read_cols = tl.minimum(cols, n_out - 1)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + read_cols).to(tl.float32)[None, :]
    if GROUPED:
        if HAS_BIAS:
            acc += bias
    else:
        x_scale = _x_scales(x_scale_ptr, rows, n_rows, x_scale_stride, 0)
        scale = x_scale[:, None] * tl.load(weight_scale_ptr + read_cols)[None, :]
        if HAS_BIAS:
            acc = tl.fma(acc, scale, tl.broadcast_to(bias, acc.shape))
        else:
            acc *= scale
    return acc


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
    acc = _finished(
        acc, x_scale_ptr, weight_scale_ptr, bias_ptr, rows, cols, n_rows, n_out, x_scale_stride,
        GROUPED, HAS_BIAS,
    )  # fmt: skip
    out_ptrs = out_ptr + rows.to(tl.int64)[:, None] * out_stride + cols[None, :]
    inside = (rows < n_rows)[:, None] & (cols < n_out)[None, :]
    tl.store(out_ptrs, acc.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _copied_tile(
    tile,
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
    """One tile, which the hardware copies to and fro."""
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
    acc = _finished(
        acc, x_scale_ptr, weight_scale_ptr, bias_ptr, rows, cols, n_rows, n_out, x_scale_stride,
        GROUPED, HAS_BIAS,
    )  # fmt: skip
    out.store([row, col], acc.to(out.dtype))


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
    PERSISTENT: tl.constexpr,
):
    """Tiles of the scaled product, added as `linear_fp8_kernel` does; see `linear_tma_kernel`."""
    if PERSISTENT:
        n_tiles = tl.cdiv(n_rows, BLOCK_M) * tl.cdiv(n_out, BLOCK_N)
        # With groups, the registers have no room for what one flat loop would carry along.
        for tile in tl.range(tl.program_id(0), n_tiles, tl.num_programs(0), flatten=not GROUPED):
            _copied_tile(
                tile, x, x_scale_ptr, weight, weight_scale_ptr, bias_ptr, out, n_rows, n_out, n_in,
                x_scale_stride, weight_scale_stride, GROUPED, HAS_BIAS, BLOCK_M, BLOCK_N, BLOCK_K,
                GROUP_M,
            )  # fmt: skip
    else:
        _copied_tile(
            tl.program_id(0), x, x_scale_ptr, weight, weight_scale_ptr, bias_ptr, out, n_rows,
            n_out, n_in, x_scale_stride, weight_scale_stride, GROUPED, HAS_BIAS, BLOCK_M, BLOCK_N,
            BLOCK_K, GROUP_M,
        )  # fmt: skip
