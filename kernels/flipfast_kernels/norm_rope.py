"""QK norm, rotary embedding and KV cache write, fused into one pass over the tokens.

Queries are normed and rotated in place; keys are normed, rotated and written to their pages, values
are written to theirs. Norms are root-mean-square (Zhang and Sennrich 2019); the rotation is that of
Su et al. 2021, pairing the two halves of a head as in GPT-NeoX.
"""

from __future__ import annotations

import torch

from flipfast_kernels.jit.norm_rope import norm_rope_kernel
from flipfast_kernels.kv_cache import check_pages, write_kv_ref
from flipfast_kernels.launch import (
    check_device,
    check_float,
    check_last_stride,
    check_range,
    check_shape,
    power_of_two,
)

_WIDEST = 32768  # numbers per token, with heads and head size rounded up to powers of two


def norm_rope_write(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    slot_mapping: torch.Tensor,
    positions: torch.Tensor,
    cos: torch.Tensor | None,
    sin: torch.Tensor | None,
    query_weight: torch.Tensor | None,
    key_weight: torch.Tensor | None,
    eps: float,
    *,
    validate: bool = True,
) -> None:
    """Norm and rotate queries in place; norm, rotate and write keys to their pages; write values.

    All in float32; a number is rounded once, when it is stored. One program takes one token, in
    tiles and an order set by the number and size of the heads: a token's bits depend on it alone.

    Bytes: every number is read once and written once, so at least 2 * T * (H + 2 * G) * D *
    itemsize / 4.8e12 seconds on an H200 (4.8 TB/s per the datasheet), and as much again for tables
    and weights that do not stay in its caches; about 20 operations per number, far below its rate.

    Args:
        query: (T, H, D), bfloat16, float16 or float32, overwritten. Here and below, the last
            dimension has stride 1 and the others any, so views of a fused QKV row work.
        key, value: (T, G, D), any of these dtypes; not modified.
        key_pages, value_pages: (pages, page_size, G, D), both of the same dtype and strides,
            page_size a power of two.
        slot_mapping: (T,) int64, page * page_size + offset. If tokens share a slot, any may win.
        positions: (T,) int64, rows of cos and sin.
        cos, sin: (positions, rotary_dim / 2) float32, rotary_dim at most D; a head's numbers from
            rotary_dim on are not rotated. None for both means no rotation.
        query_weight: float32, (D,) for a norm of each head, (H * D,) for one over all heads, None
            for no norm.
        key_weight: the same with G heads.
        eps: added to the mean square.
        validate: check that slots are in the pages and positions in the tables; on CUDA the host
            waits for that. Without it both must be right.

    Raises:
        ValueError: dtypes, shapes, strides or devices that do not fit, more than 32768 numbers per
            token, or a slot or position out of range.
    """
    _check_heads("query", query)
    check_pages(key_pages, value_pages)
    check_float(key=key, value=value)
    n_tokens, _, head_dim = query.shape
    n_pages, page_size, n_kv_heads, _ = key_pages.shape
    check_shape("key_pages", key_pages, (n_pages, page_size, n_kv_heads, head_dim))
    for name, tensor in (("key", key), ("value", value)):
        check_shape(name, tensor, (n_tokens, n_kv_heads, head_dim))
    _check_entries("slot_mapping", slot_mapping, n_tokens)
    _check_rope(query, positions, cos, sin)
    _check_weight("query_weight", query_weight, query)
    _check_weight("key_weight", key_weight, key)
    new = {"key": key, "value": value, "slot_mapping": slot_mapping}
    pages = {"key_pages": key_pages, "value_pages": value_pages}
    tables = {"positions": positions, "cos": cos, "sin": sin}
    weights = {"query_weight": query_weight, "key_weight": key_weight}
    check_device(norm_rope_kernel, query=query, **new, **pages, **tables, **weights)
    if n_tokens == 0:
        return
    if validate:
        check_range("slot_mapping", slot_mapping, 0, n_pages * page_size)
        if cos is not None:
            check_range("positions", positions, 0, cos.shape[0])
    write = (key, value, key_pages, value_pages, slot_mapping)
    _launch(query, write, positions, cos, sin, query_weight, key_weight, eps)


def norm_rope(
    x: torch.Tensor,
    positions: torch.Tensor,
    cos: torch.Tensor | None,
    sin: torch.Tensor | None,
    weight: torch.Tensor | None,
    eps: float,
    *,
    validate: bool = True,
) -> None:
    """Norm and rotate queries or keys in place, as `norm_rope_write` does.

    Bytes: 2 * T * H * D * itemsize, so at least that / 4.8e12 seconds on an H200 (4.8 TB/s per the
    datasheet).

    Args:
        x: (T, H, D), bfloat16, float16 or float32; stride 1 in the last dimension, others any.
        positions, cos, sin, eps: as in `norm_rope_write`.
        weight: as query_weight there.
        validate: check that positions are in the tables; on CUDA the host waits for that.

    Raises:
        ValueError: dtypes, shapes, strides or devices that do not fit, more than 32768 numbers per
            token, or a position out of range.
    """
    _check_heads("x", x)
    _check_rope(x, positions, cos, sin)
    _check_weight("weight", weight, x)
    check_device(norm_rope_kernel, x=x, positions=positions, cos=cos, sin=sin, weight=weight)
    if x.shape[0] == 0 or (cos is None and weight is None):
        return
    if validate and cos is not None:
        check_range("positions", positions, 0, cos.shape[0])
    _launch(x, None, positions, cos, sin, weight, None, eps)


def norm_rope_ref(
    x: torch.Tensor,
    positions: torch.Tensor,
    cos: torch.Tensor | None,
    sin: torch.Tensor | None,
    weight: torch.Tensor | None,
    eps: float,
) -> torch.Tensor:
    """Reference for `norm_rope`: returns the unrounded float64 result; x is not modified."""
    y = x.double()
    if weight is not None:
        rows = y.reshape(x.shape[0], -1, weight.numel())
        rows = rows * (rows.square().mean(-1, keepdim=True) + eps).rsqrt() * weight.double()
        y = rows.reshape(x.shape)
    if cos is None or sin is None:
        return y
    half = cos.shape[1]
    c, s = (table[positions, None].double() for table in (cos, sin))
    first, second, rest = y[..., :half], y[..., half : 2 * half], y[..., 2 * half :]
    return torch.cat([first * c - second * s, second * c + first * s, rest], dim=-1)


def norm_rope_write_ref(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    slot_mapping: torch.Tensor,
    positions: torch.Tensor,
    cos: torch.Tensor | None,
    sin: torch.Tensor | None,
    query_weight: torch.Tensor | None,
    key_weight: torch.Tensor | None,
    eps: float,
) -> None:
    """Reference for `norm_rope_write`: computed in float64 and rounded at the end."""
    query.copy_(norm_rope_ref(query, positions, cos, sin, query_weight, eps))
    turned = norm_rope_ref(key, positions, cos, sin, key_weight, eps)
    write_kv_ref(turned, value, key_pages, value_pages, slot_mapping)


def norm_rope_tiles(
    n_heads: int, n_kv_heads: int, head_dim: int, rotary_dim: int | None
) -> dict[str, int]:
    """Block sizes and warps of the kernel; rotary_dim is None without a rotation."""
    pairs = (head_dim + 1) // 2
    blocks = {
        "BLOCK_H": power_of_two(n_heads),
        "BLOCK_KV": power_of_two(n_kv_heads),
        "BLOCK_P": power_of_two(pairs),
    }
    numbers = (blocks["BLOCK_H"] + 2 * blocks["BLOCK_KV"]) * 2 * blocks["BLOCK_P"]
    return {
        "SPLIT": rotary_dim is not None and rotary_dim != 2 * pairs,
        "num_warps": min(power_of_two(-(-numbers // 1024)), 8),
        **blocks,
    }


# Keys, values, key pages, value pages, slots.
_Write = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def _launch(
    query: torch.Tensor,
    write: _Write | None,
    positions: torch.Tensor,
    cos: torch.Tensor | None,
    sin: torch.Tensor | None,
    query_weight: torch.Tensor | None,
    key_weight: torch.Tensor | None,
    eps: float,
) -> None:
    n_tokens, n_heads, head_dim = query.shape
    n_kv_heads, page_size = 1, 1
    strides = [0] * 7
    if write is not None:
        key, value, pages = write[:3]
        page_size, n_kv_heads = pages.shape[1:3]
        strides = [*key.stride()[:2], *value.stride()[:2], *pages.stride()[:3]]
    rotary_dim = None if cos is None else 2 * cos.shape[1]
    norm_rope_kernel[(n_tokens,)](
        query,
        *(write or (None,) * 5),
        positions,
        cos,
        sin,
        query_weight,
        key_weight,
        eps,
        n_heads,
        n_kv_heads,
        head_dim,
        (head_dim + 1) // 2 if rotary_dim is None else rotary_dim // 2,
        *query.stride()[:2],
        *strides,
        0 if cos is None else cos.stride(0),
        0 if sin is None else sin.stride(0),
        QUERY_NORM=_norm_kind(query_weight, head_dim),
        KEY_NORM=_norm_kind(key_weight, head_dim),
        HAS_ROPE=cos is not None,
        HAS_KEY=write is not None,
        PAGE_SIZE=page_size,
        **norm_rope_tiles(n_heads, n_kv_heads, head_dim, rotary_dim),
        enable_fp_fusion=False,
    )


def _norm_kind(weight: torch.Tensor | None, head_dim: int) -> int:
    """0 for no norm, 1 for a norm of each head, 2 for one over all heads."""
    return 0 if weight is None else 1 + (weight.shape[0] != head_dim)


def _check_heads(name: str, x: torch.Tensor) -> None:
    check_float(**{name: x})
    if x.dim() != 3 or 0 in x.shape[1:]:
        raise ValueError(f"{name} has shape {tuple(x.shape)}: expected (tokens, heads, head_dim)")
    check_last_stride(name, x)
    if power_of_two(x.shape[1]) * power_of_two(x.shape[2]) > _WIDEST:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}: heads and head_dim, both rounded up to powers of "
            f"two, may make {_WIDEST} numbers a token"
        )


def _check_entries(name: str, entries: torch.Tensor, n_tokens: int) -> None:
    if entries.dtype != torch.int64 or tuple(entries.shape) != (n_tokens,):
        raise ValueError(
            f"{name} is {entries.dtype} {tuple(entries.shape)}: pass int64 ({n_tokens},)"
        )
    if not entries.is_contiguous():
        raise ValueError(f"{name} has strides {entries.stride()}: call contiguous()")


def _check_rope(
    x: torch.Tensor, positions: torch.Tensor, cos: torch.Tensor | None, sin: torch.Tensor | None
) -> None:
    _check_entries("positions", positions, x.shape[0])
    if cos is None or sin is None:
        if cos is not sin:
            raise ValueError(f"{'cos' if cos is None else 'sin'} is None: pass both or none")
        return
    head_dim = x.shape[2]
    if cos.dim() != 2 or not 0 < 2 * cos.shape[1] <= head_dim:
        raise ValueError(
            f"cos has shape {tuple(cos.shape)}: expected (positions, rotary_dim / 2) with a "
            f"rotary_dim of 2 to {head_dim}"
        )
    for name, table in (("cos", cos), ("sin", sin)):
        check_shape(name, table, tuple(cos.shape))
        if table.dtype != torch.float32:
            raise ValueError(f"{name} is {table.dtype}: pass float32")


def _check_weight(name: str, weight: torch.Tensor | None, x: torch.Tensor) -> None:
    if weight is None:
        return
    _, n_heads, head_dim = x.shape
    if tuple(weight.shape) not in ((head_dim,), (n_heads * head_dim,)):
        raise ValueError(
            f"{name} has shape {tuple(weight.shape)}: expected ({head_dim},) for a norm of each "
            f"head or ({n_heads * head_dim},) for one over all"
        )
    check_last_stride(name, weight)
    if weight.dtype != torch.float32:
        raise ValueError(f"{name} is {weight.dtype}: pass float32")
