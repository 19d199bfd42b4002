"""Writing a step's keys and values into the pages of the KV cache."""

from __future__ import annotations

import torch

from flipfast_kernels.jit.kv_cache import write_kv_kernel
from flipfast_kernels.launch import (
    check_device,
    check_float,
    check_last_stride,
    check_range,
    check_shape,
    power_of_two,
)


def write_kv(
    key: torch.Tensor,
    value: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    slot_mapping: torch.Tensor,
    *,
    validate: bool = True,
) -> None:
    """Write each token's keys and values to its slot, rounded to the pages' dtype.

    Bytes: every number is read once and written once, so at least 2 * T * H * D * (itemsize in +
    itemsize out) / 4.8e12 seconds on an H200 (4.8 TB/s per the datasheet).

    Args:
        key, value: (T, H, D), bfloat16, float16 or float32; stride 1 in the last dimension, any
            stride in the others.
        key_pages, value_pages: (pages, page_size, H, D), both of the same dtype and strides,
            page_size a power of two.
        slot_mapping: (T,) int64, page * page_size + offset. If tokens share a slot, any may win.
        validate: check that the slots are in the pages; on CUDA the host waits for that. Without it
            a wrong slot overwrites memory outside the pages.

    Raises:
        ValueError: dtypes, shapes, strides or devices that do not fit, or a slot out of range.
    """
    _check(key, value, key_pages, value_pages, slot_mapping)
    check_device(
        write_kv_kernel,
        key=key,
        value=value,
        key_pages=key_pages,
        value_pages=value_pages,
        slot_mapping=slot_mapping,
    )
    n_tokens, n_heads, head_dim = key.shape
    if n_tokens == 0:
        return
    if validate:
        check_range("slot_mapping", slot_mapping, 0, key_pages.shape[0] * key_pages.shape[1])
    block_h, block_d = power_of_two(n_heads), power_of_two(head_dim)
    write_kv_kernel[(n_tokens,)](
        key,
        value,
        key_pages,
        value_pages,
        slot_mapping,
        key.stride(0),
        key.stride(1),
        value.stride(0),
        value.stride(1),
        *key_pages.stride()[:3],
        n_heads,
        head_dim,
        PAGE_SIZE=key_pages.shape[1],
        BLOCK_H=block_h,
        BLOCK_D=block_d,
        num_warps=min(max(block_h * block_d // 512, 1), 8),
    )


def write_kv_ref(
    key: torch.Tensor,
    value: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    slot_mapping: torch.Tensor,
) -> None:
    """Reference for `write_kv`, using torch indexing."""
    page_size = key_pages.shape[1]
    pages, offsets = slot_mapping // page_size, slot_mapping % page_size
    key_pages[pages, offsets] = key.to(key_pages.dtype)
    value_pages[pages, offsets] = value.to(value_pages.dtype)


def check_pages(key_pages: torch.Tensor, value_pages: torch.Tensor) -> None:
    """Raise ValueError unless both are (pages, page_size, H, D) of one dtype, shape and strides."""
    check_float(key_pages=key_pages)
    shape = tuple(key_pages.shape)
    if len(shape) != 4 or shape[1] & (shape[1] - 1) or shape[1] < 1:
        raise ValueError(
            f"key_pages has shape {shape}: expected (pages, page_size, heads, head_dim) with a "
            "power of two for page_size"
        )
    check_last_stride("key_pages", key_pages)
    for what in ("dtype", "shape"):
        ours, theirs = getattr(value_pages, what), getattr(key_pages, what)
        if ours != theirs:
            raise ValueError(f"value_pages has {what} {ours}, key_pages {theirs}")
    if value_pages.stride() != key_pages.stride():
        raise ValueError(
            f"value_pages has strides {value_pages.stride()}, key_pages {key_pages.stride()}"
        )


def _check(
    key: torch.Tensor,
    value: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    slot_mapping: torch.Tensor,
) -> None:
    check_pages(key_pages, value_pages)
    check_float(key=key, value=value)
    heads_and_dim = tuple(key_pages.shape[2:])
    if slot_mapping.dim() != 1 or slot_mapping.dtype != torch.int64:
        raise ValueError(
            f"slot_mapping is {slot_mapping.dtype} {tuple(slot_mapping.shape)}: pass int64, one "
            "dimension"
        )
    if not slot_mapping.is_contiguous():
        raise ValueError(f"slot_mapping has strides {slot_mapping.stride()}: call contiguous()")
    for name, tensor in (("key", key), ("value", value)):
        check_shape(name, tensor, (slot_mapping.shape[0], *heads_and_dim))
