"""Quantised numbers as GGUF files have them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize


@dataclass(frozen=True)
class Blocks:
    """A quantised tensor.

    Attributes:
        kind: GGUF's name of the blocks, "Q4_K".
        shape: of the numbers.
        data: (..., bytes of a row) uint8, on the CPU.
    """

    kind: str
    shape: tuple[int, ...]
    data: torch.Tensor = field(repr=False)


def widened(rows: torch.Tensor | Blocks) -> torch.Tensor:
    """The numbers of blocks as float32, by gguf's own rule; other tensors as they are."""
    if isinstance(rows, torch.Tensor):
        return rows
    numbers = dequantize(rows.data.numpy(), GGMLQuantizationType[rows.kind])
    return torch.from_numpy(numbers).reshape(rows.shape)
