"""Checks tensors for the C++ kernels, and gives their row counts and addresses."""

from __future__ import annotations

import torch


def n_rows(name: str, x: torch.Tensor, width: int) -> int:
    """Number of rows of a float32 matrix of the given width.

    Raises:
        ValueError: it is anything else.
    """
    if x.dtype is not torch.float32 or x.ndim != 2 or x.shape[1] != width or not x.is_cpu:
        raise ValueError(
            f"{name} must be (n, {width}) float32 on the CPU, not {tuple(x.shape)} {x.dtype} "
            f"on {x.device}"
        )
    if x.stride(1) != 1 and width > 1:
        raise ValueError(f"{name}'s last dimension must have stride 1, not {x.stride(1)}")
    return x.shape[0]


def require_rows(name: str, x: torch.Tensor, width: int, n: int) -> None:
    if n_rows(name, x, width) != n:
        raise ValueError(f"{name} has {x.shape[0]} rows where {n} are needed")


def address_of(name: str, x: torch.Tensor, n: int, dtype: torch.dtype) -> int:
    """Address of a contiguous vector of n numbers.

    Raises:
        ValueError: it is anything else.
    """
    if x.shape != (n,) or x.dtype is not dtype or not x.is_contiguous() or not x.is_cpu:
        raise ValueError(
            f"{name} must be ({n},) {dtype} on the CPU and contiguous, not {tuple(x.shape)} "
            f"{x.dtype} of stride {x.stride()} on {x.device}"
        )
    return x.data_ptr()
