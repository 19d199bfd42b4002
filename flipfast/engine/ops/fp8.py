"""Matrix products with weights in 8-bit floats (e4m3), on CUDA."""

from __future__ import annotations

import torch

from flipfast.engine.ops.base import Linear, Operand
from flipfast.engine.ops.blocks import FP8_GROUPS, Blocks
from flipfast_kernels.fp8 import linear_fp8
from flipfast_kernels.fp8_rows import FP8, GROUP, Fp8Rows, n_groups, quantize_rows


class Fp8Linear(Linear):
    """A product of weights and rows in 8-bit floats, both multiplied by scales; see `linear_fp8`.

    Rows are rounded as they come: a row's scales, and so its bits, depend on itself alone.

    Args:
        n_out, n_in: shape of the weight.
        bias: whether there is one.
        kind: `FP8_ROWS`, a scale for each row of the weight, or `FP8_GROUPS`, one for each 128
            numbers of a row. Rows of the other kind and floats are rounded to this one.
        dtype: of the results, and of the bias.
        device: a CUDA device, or any device if Triton runs in interpreter mode.
    """

    def __init__(
        self,
        n_out: int,
        n_in: int,
        *,
        bias: bool,
        kind: str,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.n_out = n_out
        self.n_in = n_in
        self._kind = kind
        self._group = GROUP if kind == FP8_GROUPS else None
        # Rows at multiples of 16 bytes, as tensor descriptors ask for.
        self._padded = torch.empty(n_out, -(-n_in // 16) * 16, dtype=FP8, device=device)
        groups = n_groups(n_in, self._group)
        self._scales = torch.empty(groups, n_out, dtype=torch.float32, device=device)
        self._bias = torch.zeros(n_out, dtype=dtype, device=device) if bias else None

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors())

    def tensors(self) -> list[torch.Tensor]:
        found = [self._padded, self._scales]
        return found if self._bias is None else [*found, self._bias]

    def load(self, rows: torch.Tensor | Blocks, first_row: int) -> None:
        """Set the rows from first_row on; those of its kind are taken as they are."""
        if isinstance(rows, Blocks) and rows.kind == self._kind:
            assert rows.scales is not None
            self._put(Fp8Rows(rows.data, rows.scales), first_row)
        else:
            super().load(rows, first_row)

    def load_rows(self, weight: torch.Tensor, first_row: int) -> None:
        """Round weight, (n, n_in), any float dtype, any device, as rows from first_row on.

        Raises:
            ValueError: a number is not finite.
        """
        if weight.dtype == torch.float64:
            weight = weight.float()
        if not weight.isfinite().all():
            broken = weight[~weight.isfinite()][0].item()
            raise ValueError(f"a weight of {broken} cannot be quantised")
        self._put(quantize_rows(weight.to(self._padded.device), self._group), first_row)

    def _put(self, rows: Fp8Rows, first_row: int) -> None:
        place = slice(first_row, first_row + len(rows))
        self._padded[place, : self.n_in].copy_(rows.numbers)
        self._scales[:, place].copy_(rows.scales.T)

    def load_bias(self, bias: torch.Tensor, first_row: int) -> None:
        if self._bias is None:
            raise ValueError(f"this product of {self.n_out} rows was made without a bias")
        self._bias[first_row : first_row + len(bias)].copy_(bias)

    def operand(self, x: torch.Tensor) -> Operand:
        """Rows of 8-bit floats in the memory of x, (n, n_in), if they have room there."""
        found = Fp8Rows.within(x, self._group)
        return x if found is None else found

    def __call__(self, x: Operand, out: torch.Tensor) -> torch.Tensor:
        if isinstance(x, torch.Tensor):
            x = quantize_rows(x, self._group, validate=False)
        weight = Fp8Rows(self._padded[:, : self.n_in], self._scales.T)
        return linear_fp8(x, weight, self._bias, out, validate=False)


def quantising_bytes(rows: int, n_in: int) -> int:
    """Most bytes that a product allocates while it runs, given (rows, n_in) as a tensor."""
    return rows * (-(-n_in // 16) * 16 + 4 * n_groups(n_in, GROUP))
