# mypy: ignore-errors
"""Device code for writing into the paged KV cache."""

import triton
import triton.language as tl


@triton.jit
def write_kv_kernel(
    key_ptr,
    value_ptr,
    key_pages_ptr,
    value_pages_ptr,
    slots_ptr,
    key_token_stride,
    key_head_stride,
    value_token_stride,
    value_head_stride,
    page_stride,
    offset_stride,
    head_stride,
    n_heads,
    head_dim,
    PAGE_SIZE: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One token: write the keys and values of all its heads to its slot."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots_ptr + token).to(tl.int64)
    heads = tl.arange(0, BLOCK_H)[:, None]
    dims = tl.arange(0, BLOCK_D)[None, :]
    inside = (heads < n_heads) & (dims < head_dim)
    to = (slot // PAGE_SIZE) * page_stride + (slot % PAGE_SIZE) * offset_stride
    to += heads * head_stride + dims
    key = tl.load(
        key_ptr + token * key_token_stride + heads * key_head_stride + dims,
        mask=inside,
        other=0.0,
    )
    value = tl.load(
        value_ptr + token * value_token_stride + heads * value_head_stride + dims,
        mask=inside,
        other=0.0,
    )
    tl.store(key_pages_ptr + to, key.to(key_pages_ptr.dtype.element_ty), mask=inside)
    tl.store(value_pages_ptr + to, value.to(value_pages_ptr.dtype.element_ty), mask=inside)
