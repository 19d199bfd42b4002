"""The gated activation between an MLP's two products (SwiGLU and GeGLU, Shazeer 2020)."""

from __future__ import annotations

import torch
from torch.nn import functional

from flipfast_kernels.fp8_rows import Fp8Rows, check_rounded, parts
from flipfast_kernels.jit.swiglu import gated_kernel
from flipfast_kernels.launch import (
    check_device,
    check_float,
    check_last_stride,
    power_of_two,
)

ACTIVATIONS = ("silu", "gelu_tanh")
_MOST_PROGRAMS = 2**31 - 1


def gated(
    gate_up: torch.Tensor,
    activation: str,
    out: torch.Tensor | Fp8Rows | None = None,
    *,
    validate: bool = True,
) -> torch.Tensor | Fp8Rows:
    """activation(gate) * up for rows that hold gate, then up; in float32 and rounded once.

    silu(x) = x / (1 + exp(-x)); gelu_tanh(x) = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 *
    x**3))) (Hendrycks and Gimpel 2016). Each output depends on its own two inputs alone.

    Bytes: 3 * M * D * itemsize, so at least that / 4.8e12 seconds on an H200 (4.8 TB/s per the
    datasheet); about 10 operations and an exponential per output, below its rate.

    Args:
        gate_up: (M, 2 * D), bfloat16, float16 or float32; any row stride.
        activation: "silu" or "gelu_tanh".
        out: (M, D), any of these dtypes, any row stride, sharing no memory with gate_up,
            overwritten; or 8-bit floats, to which the float32 result is rounded as by
            `quantize_rows`; None allocates one of gate_up's dtype.
        validate: check the tensors, which takes the host 4 to 8 microseconds. Unchecked, wrong ones
            make the kernel read or write memory that is not theirs.

    Returns:
        out.

    Raises:
        ValueError: unknown activation; dtypes, shapes, strides or devices that do not fit.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}: use one of {ACTIVATIONS}")
    if validate:
        _check(gate_up, out)
    n_rows, dim = gate_up.shape[0], gate_up.shape[1] // 2
    if out is None:
        out = torch.empty(n_rows, dim, dtype=gate_up.dtype, device=gate_up.device)
    numbers, scales = parts(out)
    if n_rows == 0 or dim == 0:
        return out
    whole = isinstance(out, Fp8Rows) and out.group is None
    block, num_warps = gated_tile(dim, whole=whole)
    programs = n_rows * -(-dim // block)
    if programs > _MOST_PROGRAMS:
        raise ValueError(f"gate_up has shape {tuple(gate_up.shape)}: pass fewer rows at a time")
    gated_kernel[(programs,)](
        gate_up,
        numbers,
        scales,
        dim,
        gate_up.stride(0),
        numbers.stride(0),
        0 if scales is None else scales.stride(0),
        GELU=activation == "gelu_tanh",
        GROUPS=out.groups_in(block) if isinstance(out, Fp8Rows) else 0,
        BLOCK=block,
        num_warps=num_warps,
        enable_fp_fusion=False,
    )
    return out


def gated_ref(
    gate_up: torch.Tensor, activation: str, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Reference for `gated`: computed in float64 and rounded at the end."""
    gate, up = gate_up.double().chunk(2, dim=1)
    if activation == "silu":
        result = functional.silu(gate) * up
    else:
        result = functional.gelu(gate, approximate="tanh") * up
    return result.to(gate_up.dtype) if out is None else out.copy_(result)


def gated_tile(dim: int, *, whole: bool = False) -> tuple[int, int]:
    """Outputs and warps per program: eight outputs per thread, or more for a whole row."""
    block = power_of_two(dim) if whole else min(power_of_two(dim), 1024)
    return block, min(max(block // 256, 1), 16)


def _check(gate_up: torch.Tensor, out: torch.Tensor | Fp8Rows | None) -> None:
    check_float(gate_up=gate_up)
    if gate_up.dim() != 2 or gate_up.shape[1] % 2:
        raise ValueError(f"gate_up has shape {tuple(gate_up.shape)}: expected (rows, 2 * width)")
    check_last_stride("gate_up", gate_up)
    numbers, scales = (None, None) if out is None else parts(out)
    if out is not None:
        check_rounded("out", out, (gate_up.shape[0], gate_up.shape[1] // 2))
    check_device(gated_kernel, gate_up=gate_up, out=numbers, scales=scales)
