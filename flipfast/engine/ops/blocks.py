"""Quantised numbers as files have them: blocks of GGUF, and 8-bit floats with scales."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

import flipfast._cpu as _cpu

# Numbers and bytes of a block, by GGUF's name of the kind: those that have kernels on the CPU.
KINDS = _cpu.quantized_kinds()

# What floats may be quantised to: the kinds for which gguf has a rule of its own.
FLOAT_KINDS = ("Q8_0", "Q4_0", "Q4_1")

# 8-bit floats (e4m3) with a scale for each row, or for each 128 numbers of one.
FP8_ROWS, FP8_GROUPS = "F8_E4M3", "F8_E4M3_128"


@dataclass(frozen=True)
class Blocks:
    """A quantised tensor.

    Attributes:
        kind: GGUF's name of the blocks, "Q4_K", or `FP8_ROWS` or `FP8_GROUPS`.
        shape: of the numbers.
        data: (..., bytes of a row) uint8, on the CPU; of 8-bit floats these, on any device.
        scales: by which 8-bit floats are multiplied, (rows, groups of a row) float32; else None.
    """

    kind: str
    shape: tuple[int, ...]
    data: torch.Tensor = field(repr=False)
    scales: torch.Tensor | None = field(default=None, repr=False)


def widened(rows: torch.Tensor | Blocks) -> torch.Tensor:
    """The numbers of blocks as float32, as gguf has them bit for bit; other tensors as they are."""
    if isinstance(rows, torch.Tensor):
        return rows
    if rows.scales is not None:
        each = rows.scales
        if rows.kind == FP8_GROUPS:
            each = each.repeat_interleave(128, 1)[:, : rows.shape[1]]
        return rows.data.float() * each
    if rows.kind not in KINDS:
        # Here, so that other models are read where gguf is not installed.
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        numbers = dequantize(rows.data.numpy(), GGMLQuantizationType[rows.kind])
        return torch.from_numpy(numbers).reshape(rows.shape)
    data, out = rows.data.contiguous(), torch.empty(rows.shape)
    n_blocks = data.numel() // KINDS[rows.kind][1]
    _cpu.dequantize(rows.kind, data.data_ptr(), n_blocks, out.data_ptr())
    return out


@torch.no_grad()
def quantised(numbers: torch.Tensor, kind: str) -> Blocks:
    """Blocks of numbers, (..., n) of any float dtype, as gguf quantises them, bit for bit.

    Args:
        numbers: n is a multiple of 32.
        kind: of `FLOAT_KINDS`.

    Raises:
        ValueError: a number is not finite.
    """
    numbers = numbers.cpu().float().contiguous()
    size, n_bytes = KINDS[kind]
    *rows, n = numbers.shape
    data = torch.empty(*rows, n // size * n_bytes, dtype=torch.uint8)
    n_blocks = numbers.numel() // size
    if not _cpu.quantize(kind, numbers.data_ptr(), n_blocks, data.data_ptr()):
        broken = numbers[~numbers.isfinite()][0].item()
        raise ValueError(f"a weight of {broken} cannot be quantised")
    return Blocks(kind, tuple(numbers.shape), data)
