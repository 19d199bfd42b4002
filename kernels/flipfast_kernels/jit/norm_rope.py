# mypy: ignore-errors
"""Device code for norming and rotating queries and keys and writing to the paged KV cache."""

import triton
import triton.language as tl


@triton.jit
def _pair_dims(head_dim, half, SPLIT: tl.constexpr, BLOCK_P: tl.constexpr):
    """(1, BLOCK_P) dimensions: first and second of each pair that is rotated.

    With SPLIT part of a head is not rotated: the remaining dimensions form pairs after the others.
    Without, both are plain ranges, which allow vector loads.
    """
    pairs = tl.arange(0, BLOCK_P)[None, :]
    if SPLIT:
        all_pairs = (head_dim + 1) // 2
        first = tl.where(pairs < half, pairs, pairs + half)
        second = first + tl.where(pairs < half, half, all_pairs - half)
        first_ok = pairs < all_pairs
    else:
        # Masks use bare arguments: any arithmetic on them would prevent vector loads.
        first = pairs
        second = pairs + half
        first_ok = pairs < half
    return first, second, first_ok, first_ok & (second < head_dim)


@triton.jit
def _normed(
    x,
    y,
    weights,
    x_dims,
    y_dims,
    x_ok,
    y_ok,
    n,
    eps,
    OVER_HEADS: tl.constexpr,
):
    """First and second halves of all heads, normed per head or with OVER_HEADS over all heads."""
    total = tl.sum(x * x + y * y, axis=1)
    if OVER_HEADS:
        scale = tl.rsqrt(tl.sum(total, axis=0) / n + eps)
    else:
        scale = tl.rsqrt(total / n + eps)[:, None]
    x_weight = tl.load(weights + x_dims, mask=x_ok, other=0.0)
    y_weight = tl.load(weights + y_dims, mask=y_ok, other=0.0)
    return x * scale * x_weight, y * scale * y_weight


@triton.jit
def norm_rope_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
    key_pages_ptr,
    value_pages_ptr,
    slots_ptr,
    positions_ptr,
    cos_ptr,
    sin_ptr,
    query_weight_ptr,
    key_weight_ptr,
    eps,
    n_heads,
    n_kv_heads,
    head_dim,
    half,
    query_stride,
    query_head_stride,
    key_stride,
    key_head_stride,
    value_stride,
    value_head_stride,
    page_stride,
    offset_stride,
    page_head_stride,
    cos_stride,
    sin_stride,
    QUERY_NORM: tl.constexpr,
    KEY_NORM: tl.constexpr,
    HAS_ROPE: tl.constexpr,
    SPLIT: tl.constexpr,
    HAS_KEY: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_KV: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """One token: queries in place, keys and values to its slot; all loads before any store.

    QUERY_NORM and KEY_NORM are 0 for none, 1 for a norm of each head, 2 for one over all heads. A
    head is held as two tiles, one per element of the rotated pairs, so a thread has both of a pair.
    """
    token = tl.program_id(0).to(tl.int64)
    x_dims, y_dims, x_ok, y_ok = _pair_dims(head_dim, half, SPLIT, BLOCK_P)
    heads = tl.arange(0, BLOCK_H)[:, None].to(tl.int64)
    qx_ok = (heads < n_heads) & x_ok
    qy_ok = (heads < n_heads) & y_ok
    queries = query_ptr + token * query_stride + heads * query_head_stride
    if QUERY_NORM or HAS_ROPE:
        qx = tl.load(queries + x_dims, mask=qx_ok, other=0.0)
        qy = tl.load(queries + y_dims, mask=qy_ok, other=0.0)
    if HAS_KEY:
        kv_heads = tl.arange(0, BLOCK_KV)[:, None].to(tl.int64)
        kx_ok = (kv_heads < n_kv_heads) & x_ok
        ky_ok = (kv_heads < n_kv_heads) & y_ok
        keys = key_ptr + token * key_stride + kv_heads * key_head_stride
        kx = tl.load(keys + x_dims, mask=kx_ok, other=0.0)
        ky = tl.load(keys + y_dims, mask=ky_ok, other=0.0)
        dims = tl.arange(0, 2 * BLOCK_P)[None, :]
        values_ok = (kv_heads < n_kv_heads) & (dims < head_dim)
        values = value_ptr + token * value_stride + kv_heads * value_head_stride + dims
        value = tl.load(values, mask=values_ok, other=0.0)
        slot = tl.load(slots_ptr + token)
    if HAS_ROPE:
        pairs = tl.arange(0, BLOCK_P)[None, :]
        position = tl.load(positions_ptr + token)
        # Dimensions that are not rotated have the angle 0.
        cos = tl.load(cos_ptr + position * cos_stride + pairs, mask=pairs < half, other=1.0)
        sin = tl.load(sin_ptr + position * sin_stride + pairs, mask=pairs < half, other=0.0)

    if HAS_KEY:
        to = (slot // PAGE_SIZE) * page_stride + (slot % PAGE_SIZE) * offset_stride
        to += kv_heads * page_head_stride
        page_type: tl.constexpr = key_pages_ptr.dtype.element_ty
        tl.store(value_pages_ptr + to + dims, value.to(page_type), mask=values_ok)
        kx = kx.to(tl.float32)
        ky = ky.to(tl.float32)
        if KEY_NORM == 1:
            kx, ky = _normed(
                kx, ky, key_weight_ptr, x_dims, y_dims, x_ok, y_ok, head_dim, eps, False
            )
        if KEY_NORM == 2:
            weights = key_weight_ptr + kv_heads * head_dim
            n = n_kv_heads * head_dim
            kx, ky = _normed(kx, ky, weights, x_dims, y_dims, kx_ok, ky_ok, n, eps, True)
        if HAS_ROPE:
            kx, ky = kx * cos - ky * sin, ky * cos + kx * sin
        tl.store(key_pages_ptr + to + x_dims, kx.to(page_type), mask=kx_ok)
        tl.store(key_pages_ptr + to + y_dims, ky.to(page_type), mask=ky_ok)

    if QUERY_NORM or HAS_ROPE:
        qx = qx.to(tl.float32)
        qy = qy.to(tl.float32)
        if QUERY_NORM == 1:
            qx, qy = _normed(
                qx, qy, query_weight_ptr, x_dims, y_dims, x_ok, y_ok, head_dim, eps, False
            )
        if QUERY_NORM == 2:
            weights = query_weight_ptr + heads * head_dim
            n = n_heads * head_dim
            qx, qy = _normed(qx, qy, weights, x_dims, y_dims, qx_ok, qy_ok, n, eps, True)
        if HAS_ROPE:
            qx, qy = qx * cos - qy * sin, qy * cos + qx * sin
        query_type: tl.constexpr = query_ptr.dtype.element_ty
        tl.store(queries + x_dims, qx.to(query_type), mask=qx_ok)
        tl.store(queries + y_dims, qy.to(query_type), mask=qy_ok)
