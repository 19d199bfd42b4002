"""Which device kernels are launched on."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def as_current(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU the calling thread's current one: Triton launches there, wherever tensors lie."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
