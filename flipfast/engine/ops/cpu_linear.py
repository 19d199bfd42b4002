"""Matrix products on the CPU, with the weight packed for the C++ kernels."""

from __future__ import annotations

import torch

import flipfast._cpu as _cpu
from flipfast.engine.ops.base import Linear, Operand
from flipfast.engine.ops.cpu_tensors import n_rows, require_rows

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class PackedCpuLinear(Linear):
    """What products with a packed weight share.

    Args:
        n_out, n_in: shape of the weight.
        packed: the weight and the bias in C++.
    """

    def __init__(
        self, n_out: int, n_in: int, packed: _cpu.PackedLinear | _cpu.QuantizedLinear
    ) -> None:
        self.n_out = n_out
        self.n_in = n_in
        self._packed = packed

    @property
    def nbytes(self) -> int:
        """Bytes of the weight loaded so far and of the bias, including padding."""
        return self._packed.nbytes

    @torch.no_grad()
    def load_bias(self, bias: torch.Tensor, first_row: int) -> None:
        """Set the bias of the rows from first_row on to bias, (n,), any float dtype, any device.

        Raises:
            ValueError: another shape, not a float dtype, or a product without a bias.
            IndexError: rows outside the bias.
        """
        if bias.ndim != 1 or not bias.is_floating_point():
            raise ValueError(
                f"a bias must be (n,) of a float dtype, not {tuple(bias.shape)} {bias.dtype}"
            )
        bias = bias.cpu().float().contiguous()
        self._packed.load_bias(bias.data_ptr(), first_row, bias.shape[0])

    def __call__(self, x: Operand, out: torch.Tensor) -> torch.Tensor:
        """Write x @ weight.T + bias, (n, n_in) to (n, n_out), into `out` and return it."""
        assert isinstance(x, torch.Tensor)  # it has no operands of its own
        n = n_rows("x", x, self.n_in)
        require_rows("out", out, self.n_out, n)
        self._packed.forward(x.data_ptr(), x.stride(0), n, out.data_ptr(), out.stride(0))
        return out


class CpuLinear(PackedCpuLinear):
    """A product with the weight packed in panels of 32 outputs.

    Args:
        n_out, n_in: shape of the weight.
        bias: whether there is one.
        storage: dtype of the weight in memory, float32 or bfloat16.
        compute: dtype that operands are rounded to; sums are float32.
    """

    def __init__(
        self, n_out: int, n_in: int, *, bias: bool, storage: torch.dtype, compute: torch.dtype
    ) -> None:
        self._exact = compute is torch.float32
        self._packed: _cpu.PackedLinear
        packed = _cpu.PackedLinear(n_out, n_in, DTYPES[storage], DTYPES[compute], bias)
        super().__init__(n_out, n_in, packed)

    @torch.no_grad()
    def load_rows(self, weight: torch.Tensor, first_row: int) -> None:
        """Set the rows from first_row on to weight, (n, n_in), any float dtype, any device.

        With float32 operands nothing is lost: if bfloat16 cannot represent a weight exactly, the
        storage changes to float32.

        Raises:
            ValueError: another shape, or not a float dtype.
            IndexError: rows outside the weight.
        """
        if weight.ndim != 2 or weight.shape[1] != self.n_in or not weight.is_floating_point():
            raise ValueError(
                f"rows must be (n, {self.n_in}) of a float dtype, not {tuple(weight.shape)} "
                f"{weight.dtype}"
            )
        weight = weight.cpu()
        if weight.dtype not in DTYPES:
            weight = weight.float()
        if weight.stride(1) != 1:
            weight = weight.contiguous()
        if self._exact and self._packed.storage == "bfloat16" and not _fits_bfloat16(weight):
            self._packed.widen()
        self._packed.load_rows(
            weight.data_ptr(),
            DTYPES[weight.dtype],
            weight.stride(0),
            first_row,
            weight.shape[0],
        )


def _fits_bfloat16(weight: torch.Tensor) -> bool:
    return weight.dtype is torch.bfloat16 or torch.equal(weight.bfloat16().float(), weight)
