"""What the host sides of the kernels share: checks before a launch, facts of the device."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

import torch

_TRITON: Any = import_module("triton")  # it has no type stubs
FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def kernel_runs_on(kernel: Any, device: torch.device) -> bool:
    """Whether a kernel can run on a device: CUDA, or any where Triton interprets it."""
    return device.type == "cuda" or not isinstance(kernel, _TRITON.JITFunction)


def check_device(kernel: Any, **tensors: torch.Tensor | None) -> None:
    """Raise ValueError unless all tensors lie on one device that the kernel runs on."""
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
    """Raise ValueError unless the tensor has this shape and neighbours in its last dimension."""
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected {shape}")
    check_last_stride(name, tensor)


def check_last_stride(name: str, tensor: torch.Tensor) -> None:
    """Raise ValueError where neighbours in the last dimension are not neighbours in memory."""
    if tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
        raise ValueError(
            f"{name} has strides {tensor.stride()}: the last one must be 1, call contiguous()"
        )


@lru_cache(maxsize=64)
def device_facts(device: torch.device) -> tuple[int, int]:
    """Compute capability (90 for 9.0) and number of multiprocessors; a Hopper's off CUDA."""
    if device.type != "cuda":
        return 90, 132
    properties = torch.cuda.get_device_properties(device)
    return 10 * properties.major + properties.minor, properties.multi_processor_count


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n, for n of 1 or more."""
    return 1 << (n - 1).bit_length()
