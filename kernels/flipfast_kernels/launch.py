"""Shared host-side helpers of the kernels: checks before a launch and device properties."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

import torch

_TRITON: Any = import_module("triton")  # it has no type stubs
FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def kernel_runs_on(kernel: Any, device: torch.device) -> bool:
    """Whether a kernel can run on a device: CUDA, or any device if Triton interprets it."""
    return device.type == "cuda" or not isinstance(kernel, _TRITON.JITFunction)


def check_device(kernel: Any, **tensors: torch.Tensor | None) -> None:
    """Raise ValueError unless all tensors are on one device that the kernel runs on."""
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    first, device = next((name, tensor.device) for name, tensor in given.items())
    if not kernel_runs_on(kernel, device):
        raise ValueError(f"{first} is on {device}: this kernel needs a CUDA device")
    for name, tensor in given.items():
        if tensor.device != device:
            raise ValueError(f"{name} is on {tensor.device}, {first} on {device}")


def check_float(**tensors: torch.Tensor | None) -> None:
    """Raise ValueError unless every tensor is float32, bfloat16 or float16."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype not in FLOATS:
            raise ValueError(f"{name} is {tensor.dtype}: pass float32, bfloat16 or float16")


def check_shape(name: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless the tensor has this shape and its last dimension is contiguous."""
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected {shape}")
    check_last_stride(name, tensor)


def check_last_stride(name: str, tensor: torch.Tensor) -> None:
    """Raise ValueError unless the last dimension is contiguous in memory."""
    if tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
        raise ValueError(
            f"{name} has strides {tensor.stride()}: the last one must be 1, call contiguous()"
        )


@lru_cache(maxsize=64)
def device_facts(device: torch.device) -> tuple[int, int]:
    """Compute capability (90 for 9.0) and number of multiprocessors; off CUDA those of a Hopper."""
    if device.type != "cuda":
        return 90, 132
    properties = torch.cuda.get_device_properties(device)
    return 10 * properties.major + properties.minor, properties.multi_processor_count


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n, for n of 1 or more."""
    return 1 << (n - 1).bit_length()


def check_integers(**tensors: torch.Tensor | None) -> None:
    """Raise ValueError unless every tensor is contiguous int32 or int64."""
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if tensor.dtype not in (torch.int32, torch.int64):
            raise ValueError(f"{name} is {tensor.dtype}: pass int32 or int64")
        if not tensor.is_contiguous():
            raise ValueError(f"{name} has strides {tensor.stride()}: call contiguous()")


def check_range(name: str, tensor: torch.Tensor, low: int, high: int) -> None:
    """Raise ValueError, naming the first offender, unless every entry is in [low, high).

    Reads the tensor: on CUDA the host waits for it.
    """
    outside = (tensor < low) | (tensor >= high)
    if outside.any():
        at = int(outside.flatten().int().argmax())
        value = int(tensor.flatten()[at])
        raise ValueError(f"{name} has {value} at {at}: it must lie in [{low}, {high})")


def check_offsets(name: str, offsets: torch.Tensor, total: int) -> None:
    """Raise ValueError unless offsets (n + 1,) are non-decreasing and in [0, total].

    Reads the tensor: on CUDA the host waits for it.
    """
    if offsets.dim() != 1 or offsets.shape[0] < 1:
        raise ValueError(f"{name} has shape {tuple(offsets.shape)}: expected (rows + 1,)")
    values = offsets.cpu()
    falls = values[1:] < values[:-1]
    if falls.any():
        at = int(falls.int().argmax())
        before, after = values[at : at + 2].tolist()
        raise ValueError(f"{name} falls from {before} to {after} at {at + 1}: rows must not")
    first, last = int(values[0]), int(values[-1])
    if first < 0 or last > total:
        raise ValueError(f"{name} runs from {first} to {last}: there are {total} entries")
