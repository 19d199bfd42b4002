# mypy: ignore-errors
"""Device code for the LM head: a product whose tiles are reduced where they are computed."""

import triton
import triton.language as tl

from flipfast_kernels.jit.gemm import product_tile

_LOG2_E = tl.constexpr(1.4426950408889634)


# One binary for any number of rows.
@triton.jit(do_not_specialize=["n_rows"])
def head_tile_kernel(
    x_ptr,
    weight_ptr,
    targets_ptr,
    target_ptr,
    parts_ptr,
    n_rows,
    n_out,
    n_in,
    x_stride,
    weight_stride,
    cap,
    HAS_SUMS: tl.constexpr,
    HAS_TARGETS: tl.constexpr,
    HAS_CAP: tl.constexpr,
    EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """One tile of x @ weight.T, as `linear_kernel` computes it, reduced over its columns.

    parts is (2 or 3, n_rows, tiles of columns) float32: the tile's largest logit, the first column
    that has it, and with HAS_SUMS the sum of the other logits' exponentials relative to it.
    """
    tile_m, tile_n, acc = product_tile(
        x_ptr, weight_ptr, n_rows, n_out, n_in, x_stride, weight_stride, EVEN_K, BLOCK_M, BLOCK_N,
        BLOCK_K, GROUP_M,
    )  # fmt: skip
    tiles_n = tl.cdiv(n_out, BLOCK_N)
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    read_rows = tl.minimum(rows, n_rows - 1).to(tl.int64)

    # From here on columns are relative to the tile: values that the compiler knows.
    stored = rows < n_rows
    at = tl.arange(0, BLOCK_N)[None, :]
    start = tile_n * BLOCK_N
    if HAS_TARGETS:
        targets = tl.load(targets_ptr + read_rows) - start
        holds = (targets >= 0) & (targets < BLOCK_N)
        own = tl.where(at == tl.where(holds, targets, -1).to(tl.int32)[:, None], acc, 0.0)
        tl.store(target_ptr + rows, tl.sum(own, axis=1), mask=stored & holds)
    # tl.max ignores NaN, which must count as the largest number. Columns past the last repeat the
    # last one: never larger, never first.
    acc = tl.where(acc == acc, acc, float("inf"))
    top = tl.max(acc, axis=1)
    first = tl.min(tl.where(acc == top[:, None], at, BLOCK_N), axis=1)
    to = parts_ptr + read_rows * tiles_n + tile_n
    part = n_rows.to(tl.int64) * tiles_n
    tl.store(to, top, mask=stored)
    tl.store(to + part, (start + first).to(tl.float32), mask=stored)
    if HAS_SUMS:
        if HAS_CAP:
            acc = _capped(acc, cap)
            top = _capped(top, cap)
        # If all logits are -inf they add 0, not exp(-inf + inf).
        shift = tl.where(top > float("-inf"), top, 0.0)
        others = (at < n_out - start) & (at != first[:, None])
        terms = tl.where(others, tl.exp2((acc - shift[:, None]) * _LOG2_E), 0.0)
        tl.store(to + 2 * part, tl.sum(terms, axis=1), mask=stored)


@triton.jit(do_not_specialize=["n_rows"])
def head_row_kernel(
    parts_ptr,
    targets_ptr,
    best_ptr,
    best_logit_ptr,
    logsumexp_ptr,
    target_ptr,
    n_rows,
    n_out,
    n_tiles,
    cap,
    HAS_SUMS: tl.constexpr,
    HAS_TARGETS: tl.constexpr,
    HAS_CAP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Combine one row's parts, in an order set by the number of tiles alone."""
    row = tl.program_id(0).to(tl.int64)
    tiles = tl.arange(0, BLOCK)
    inside = tiles < n_tiles
    parts = parts_ptr + row * n_tiles + tiles
    part = n_rows.to(tl.int64) * n_tiles
    tops = tl.load(parts, mask=inside, other=float("-inf"))
    firsts = tl.load(parts + part, mask=inside, other=0.0)
    top = tl.max(tops, axis=0)
    first = tl.min(tl.where(inside & (tops == top), firsts, float("inf")), axis=0)
    finite = tl.abs(top) < float("inf")
    tl.store(best_ptr + row, tl.where(finite, first, -1.0).to(tl.int64))
    nan = float("nan")
    if HAS_CAP:
        tops = _capped(tops, cap)
        top = _capped(top, cap)
    tl.store(best_logit_ptr + row, tl.where(finite, top, nan))
    if HAS_SUMS:
        rests = tl.load(parts + 2 * part, mask=inside, other=0.0)
        # A tile's largest logit adds 1 to its rest, except the row's largest: see log(1 + rest).
        rests += tl.where(firsts == first, 0.0, 1.0)
        scales = tl.exp2((tops - top) * _LOG2_E)
        terms = tl.where(inside, rests * scales, 0.0)
        rest = tl.sum(terms.to(tl.float64), axis=0)
        # log(1 + rest), which is rest where adding 1 would round it away.
        log_total = tl.where(rest < 1e-9, rest, tl.log(1.0 + rest))
        total = (top.to(tl.float64) + log_total).to(tl.float32)
        tl.store(logsumexp_ptr + row, tl.where(finite, total, nan))
        if HAS_TARGETS:
            target = tl.load(targets_ptr + row)
            logit = tl.load(target_ptr + row)
            if HAS_CAP:
                logit = _capped(logit, cap)
            # Not target - total, which would lose precision for probabilities near 1.
            log_prob = ((logit - top).to(tl.float64) - log_total).to(tl.float32)
            known = finite & (target >= 0) & (target < n_out)
            tl.store(target_ptr + row, tl.where(known, log_prob, nan))


@triton.jit
def _capped(logits, cap):
    """cap * tanh(logits / cap), where tanh(y) = 1 - 2 / (exp(2y) + 1)."""
    return cap * (1.0 - 2.0 / (tl.exp2(logits * (2.0 * _LOG2_E / cap)) + 1.0))
