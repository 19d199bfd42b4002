"""Feeding a step the tokens that the step before has sampled, which the host may not know yet."""

from __future__ import annotations

import torch

from flipfast_kernels.jit.feed import feed_kernel
from flipfast_kernels.launch import check_device, check_range, check_shape

_BLOCK = 1024  # ids a program


def feed_tokens(
    input_ids: torch.Tensor,
    fed_slots: torch.Tensor,
    last_token: torch.Tensor,
    *,
    validate: bool = True,
) -> torch.Tensor:
    """Put last_token[fed_slots[i]] in place of input_ids[i] where that slot is not negative.

    Bytes: 8 a token, and 16 more for each that is replaced; what matters is that it is one launch.

    Args:
        input_ids: (n,) int64, contiguous, overwritten.
        fed_slots: (n,) int64, contiguous; negative for ids that stay.
        last_token: (slots,) int64, contiguous, sharing no memory with input_ids.
        validate: read fed_slots to check it; on CUDA the host waits for that. Without it a wrong
            slot reads memory outside last_token.

    Returns:
        input_ids.

    Raises:
        ValueError: dtypes, shapes, strides or devices that do not fit, or a slot out of range.
    """
    _check(input_ids, fed_slots, last_token)
    if validate:
        check_range("fed_slots", fed_slots.clamp(min=-1), -1, last_token.shape[0])
    n = input_ids.shape[0]
    if n:
        blocks = -(-n // _BLOCK)
        feed_kernel[(blocks,)](input_ids, fed_slots, last_token, n, BLOCK=_BLOCK, num_warps=4)
    return input_ids


def feed_tokens_ref(
    input_ids: torch.Tensor, fed_slots: torch.Tensor, last_token: torch.Tensor
) -> torch.Tensor:
    """Reference for `feed_tokens`, one id at a time."""
    for at, slot in enumerate(fed_slots.tolist()):
        if slot >= 0:
            input_ids[at] = last_token[slot]
    return input_ids


def _check(input_ids: torch.Tensor, fed_slots: torch.Tensor, last_token: torch.Tensor) -> None:
    tensors = {"input_ids": input_ids, "fed_slots": fed_slots, "last_token": last_token}
    for name, tensor in tensors.items():
        if tensor.dtype != torch.int64 or tensor.dim() != 1:
            raise ValueError(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)}: pass int64, one dimension"
            )
        if not tensor.is_contiguous():
            raise ValueError(f"{name} has strides {tensor.stride()}: call contiguous()")
    check_shape("fed_slots", fed_slots, tuple(input_ids.shape))
    check_device(feed_kernel, **tensors)
