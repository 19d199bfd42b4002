"""Measures a device's peak rates, right before a run is compared with them."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from flipfast.profiling.recorder import Rates

_REPEATS = 7


def measure_rates(
    device: torch.device, dtype: torch.dtype, *, n_bytes: int | None = None, side: int | None = None
) -> Rates:
    """Measure the bandwidth of a copy within the device and the rate of a square matrix product.

    Both are medians over several repeats.

    Args:
        device: CPU or CUDA.
        dtype: of the product.
        n_bytes: of the copy; None suits the device.
        side: of the product's matrices; None suits the device.
    """
    on_cuda = device.type == "cuda"
    n_bytes = n_bytes or (2**30 if on_cuda else 2**26)
    source = torch.ones(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_s = _seconds(lambda: target.copy_(source), device)
    side = side or (8192 if on_cuda else 1024)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    product_s = _seconds(lambda: torch.mm(a, b, out=out), device)
    return Rates(2 * source.nbytes / copy_s, 2 * side**3 / product_s)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    spans = []
    for _ in range(_REPEATS + 2):
        wait()
        begin = time.perf_counter()
        call()
        wait()
        spans.append(time.perf_counter() - begin)
    return sorted(spans[2:])[_REPEATS // 2]
