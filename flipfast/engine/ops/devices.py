"""Selects the device on which kernels are launched."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def as_current(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU the thread's current device, where Triton launches, wherever the tensors live."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
