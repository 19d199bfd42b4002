# mypy: ignore-errors
"""Device code for the matrix product."""

import triton
import triton.language as tl


@triton.jit
def place_of(
    tile, n_rows, n_out, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr
):
    """The row index and the column index of a tile.

    GROUP_M tiles of rows walk over the columns together, so that they share weights in L2.
    """
    tiles_m = tl.cdiv(n_rows, BLOCK_M)
    tiles_n = tl.cdiv(n_out, BLOCK_N)
    group = tile // (GROUP_M * tiles_n)
    first_m = group * GROUP_M
    height = tl.minimum(tiles_m - first_m, GROUP_M)
    in_group = tile % (GROUP_M * tiles_n)
    return first_m + in_group % height, in_group // height


@triton.jit
def product_tile(
    x_ptr,
    weight_ptr,
    n_rows,
    n_out,
    n_in,
    x_stride,
    weight_stride,
    EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """This program's tile of x @ weight.T: one float32 accumulator, summed over K in order.

    Rows past the last read row n_rows - 1 again (their results must not be used), so that only the
    tail of K, which does not depend on the batch, needs a mask.

    Returns: the tile's row index and column index, and the (BLOCK_M, BLOCK_N) sums.
    """
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
        acc = tl.dot(x, w, acc, input_precision="ieee")
        x_ptrs += BLOCK_K
        w_ptrs += BLOCK_K
    return tile_m, tile_n, acc


# One binary for any number of rows.
@triton.jit(do_not_specialize=["n_rows"])
def linear_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    n_rows,
    n_out,
    n_in,
    x_stride,
    weight_stride,
    out_stride,
    HAS_BIAS: tl.constexpr,
    EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """One tile of x @ weight.T + bias."""
    tile_m, tile_n, acc = product_tile(
        x_ptr, weight_ptr, n_rows, n_out, n_in, x_stride, weight_stride, EVEN_K, BLOCK_M, BLOCK_N,
        BLOCK_K, GROUP_M,
    )  # fmt: skip
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    if HAS_BIAS:
        read_cols = tl.minimum(cols, n_out - 1).to(tl.int64)
        acc += tl.load(bias_ptr + read_cols).to(tl.float32)[None, :]
    out_ptrs = out_ptr + rows.to(tl.int64)[:, None] * out_stride + cols[None, :]
    inside = (rows < n_rows)[:, None] & (cols < n_out)[None, :]
    tl.store(out_ptrs, acc.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _copied_tile(
    tile,
    x,
    weight,
    bias_ptr,
    out,
    n_rows,
    n_out,
    n_in,
    HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """One tile of x @ weight.T + bias, which the hardware copies in parts and writes."""
    tile_m, tile_n = place_of(tile, n_rows, n_out, BLOCK_M, BLOCK_N, GROUP_M)
    row = tile_m * BLOCK_M
    col = tile_n * BLOCK_N
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, n_in, BLOCK_K):
        acc = tl.dot(x.load([row, k]), tl.trans(weight.load([col, k])), acc)
    if HAS_BIAS:
        read_cols = tl.minimum(col + tl.arange(0, BLOCK_N), n_out - 1)
        acc += tl.load(bias_ptr + read_cols).to(tl.float32)[None, :]
    out.store([row, col], acc.to(out.dtype))


# One binary for all sizes: what they are divisible by changes nothing here.
@triton.jit(do_not_specialize=["n_rows", "n_out", "n_in"])
def linear_tma_kernel(
    x,
    weight,
    bias_ptr,
    out,
    n_rows,
    n_out,
    n_in,
    HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    PERSISTENT: tl.constexpr,
):
    """Tiles of x @ weight.T + bias, added as `linear_kernel` does.

    A program computes one tile or, if PERSISTENT, every tl.num_programs(0)th. x, weight and out are
    tensor descriptors of tiles (BLOCK_M, BLOCK_K), (BLOCK_N, BLOCK_K) and (BLOCK_M, BLOCK_N): the
    hardware reads zeros past their ends and writes nothing there.
    """
    if PERSISTENT:
        n_tiles = tl.cdiv(n_rows, BLOCK_M) * tl.cdiv(n_out, BLOCK_N)
        # One flat loop, so that a tile's first reads start before the tile before it is written.
        for tile in tl.range(tl.program_id(0), n_tiles, tl.num_programs(0), flatten=True):
            _copied_tile(
                tile, x, weight, bias_ptr, out, n_rows, n_out, n_in, HAS_BIAS, BLOCK_M, BLOCK_N,
                BLOCK_K, GROUP_M,
            )  # fmt: skip
    else:
        _copied_tile(
            tl.program_id(0), x, weight, bias_ptr, out, n_rows, n_out, n_in, HAS_BIAS, BLOCK_M,
            BLOCK_N, BLOCK_K, GROUP_M,
        )  # fmt: skip
