"""Matrix products on the CPU with quantised weights, in the blocks that GGUF files have."""

from __future__ import annotations

from collections.abc import Container

import torch

import flipfast._cpu as _cpu
from flipfast.engine.ops.base import Linear
from flipfast.engine.ops.blocks import FLOAT_KINDS, KINDS, Blocks, quantised
from flipfast.engine.ops.cpu_linear import PackedCpuLinear
from flipfast.engine.ops.cpu_tensors import address_of, require_rows


class QuantizedCpuLinear(PackedCpuLinear):
    """A product of quantised weights with rows quantised to bytes, 32 numbers at a time.

    The sums of a block are exact, and those over the blocks float32 in their order: a row has the
    same bits in every batch and, unlike those of `CpuLinear`, with every instruction set. A row
    with an infinity or a NaN gives NaN.

    Args:
        n_out, n_in: shape of the weight; n_in is a multiple of 32.
        bias: whether there is one.
        kind: what rows of floats are quantised to, of `FLOAT_KINDS`.
        kept: kinds of blocks that `load` takes as they are; others become floats, and then `kind`.

    Raises:
        ValueError: another n_in or kind.
    """

    def __init__(
        self,
        n_out: int,
        n_in: int,
        *,
        bias: bool,
        kind: str = "Q8_0",
        kept: Container[str] = tuple(KINDS),
    ) -> None:
        if kind not in FLOAT_KINDS:
            raise ValueError(
                f"floats can be quantised to {', '.join(FLOAT_KINDS)}, not to {kind!r}"
            )
        self._kind = kind
        self._kept = kept
        self._packed: _cpu.QuantizedLinear
        super().__init__(n_out, n_in, _cpu.QuantizedLinear(n_out, n_in, bias))

    @property
    def table(self) -> Linear:
        """Itself."""
        return self

    def load(self, rows: torch.Tensor | Blocks, first_row: int) -> None:
        """Set the rows from first_row on, (n, n_in).

        Raises:
            ValueError, IndexError: as for `load_rows` and `load_blocks`.
        """
        if isinstance(rows, Blocks) and rows.kind in self._kept:
            self.load_blocks(rows.data, rows.kind, first_row)
        else:
            super().load(rows, first_row)

    @torch.no_grad()
    def load_rows(self, weight: torch.Tensor, first_row: int) -> None:
        """Quantise weight, (n, n_in), any float dtype, any device, as rows from first_row on.

        The blocks are those of `gguf.quants.quantize`.

        Raises:
            ValueError: another shape, not a float dtype, or a number that is not finite; or as for
                `load_blocks`.
            IndexError: rows outside the weight.
        """
        if weight.ndim != 2 or weight.shape[1] != self.n_in or not weight.is_floating_point():
            raise ValueError(
                f"rows must be (n, {self.n_in}) of a float dtype, not {tuple(weight.shape)} "
                f"{weight.dtype}"
            )
        self.load_blocks(quantised(weight, self._kind).data, self._kind, first_row)

    def load_blocks(self, blocks: torch.Tensor, kind: str, first_row: int) -> None:
        """Set the rows from first_row on to blocks as a GGUF file has them.

        Rows of several kinds may lie side by side. Those of one call share panels of 32 outputs, so
        that a weight is best loaded in few calls; loading over rows needs the same ones again.

        Args:
            blocks: (n, bytes of a row) uint8.
            kind: GGUF's name of the blocks, of `KINDS`.
            first_row: of the weight.

        Raises:
            ValueError: another shape or kind, an n_in that is not of whole blocks, or rows that
                overlap others loaded before.
            IndexError: rows outside the weight.
        """
        numbers, size = KINDS.get(kind, (1, 0))
        if blocks.dtype is not torch.uint8 or blocks.ndim != 2 or not blocks.is_cpu:
            raise ValueError(
                f"blocks must be (n, bytes of a row) uint8 on the CPU, not {tuple(blocks.shape)} "
                f"{blocks.dtype} on {blocks.device}"
            )
        if kind in KINDS and blocks.shape[1] * numbers != self.n_in * size:
            raise ValueError(
                f"a row of {self.n_in} numbers as {kind} has {self.n_in / numbers * size:g} bytes, "
                f"not {blocks.shape[1]}"
            )
        blocks = blocks.contiguous()
        self._packed.load_rows(
            kind, blocks.data_ptr(), blocks.stride(0), first_row, blocks.shape[0]
        )

    def embed(self, ids: torch.Tensor, scale: float, out: torch.Tensor) -> torch.Tensor:
        """Write rows `ids`, (n,) int64, of the weight, times scale, to `out` and return it.

        The rows are those of `gguf.quants.dequantize`, bit for bit.

        Raises:
            ValueError: another shape, or a row that the weight does not have.
        """
        n = ids.shape[0]
        address = address_of("ids", ids, n, torch.int64)
        require_rows("out", out, self.n_in, n)
        self._packed.embed(address, n, scale, out.data_ptr(), out.stride(0))
        return out
