"""The operations in plain torch, for any device and float dtype; the reference for the others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from flipfast.engine.ops.base import Linear, Operand, Ops, RopeTable, Table, Written

# product(x, weight, bias, out) writes x @ weight.T + bias into out.
Product = Callable[[torch.Tensor, torch.Tensor, "torch.Tensor | None", torch.Tensor], object]
# norm(x, weight, eps, out, residual) adds x to the residual in place, if there is one, and writes
# the norm of the sum, or of x without a residual, into out, which may be x.
Norm = Callable[[torch.Tensor, torch.Tensor, float, Operand, "torch.Tensor | None"], object]


def plain_product(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor
) -> torch.Tensor:
    """Write x @ weight.T + bias, (n, n_in) to (n, n_out), into `out`, by torch's own product."""
    if bias is None:
        return torch.mm(x, weight.t(), out=out)
    return torch.addmm(bias, x, weight.t(), out=out)


class TorchLinear(Linear):
    """A product with a weight in the checkpoint's layout.

    Attributes:
        weight: (n_out, n_in) in the operations' dtype.
        bias: (n_out,), or None.
    """

    def __init__(
        self, n_out: int, n_in: int, bias: bool, product: Product, options: dict[str, object]
    ) -> None:
        self.n_out = n_out
        self.n_in = n_in
        self._product = product
        self.weight: torch.Tensor = torch.empty(n_out, n_in, **options)  # type: ignore[call-overload]
        self.bias: torch.Tensor | None = (
            torch.zeros(n_out, **options) if bias else None  # type: ignore[call-overload]
        )

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors())

    def tensors(self) -> list[torch.Tensor]:
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    @property
    def table(self) -> torch.Tensor:
        return self.weight

    def load_rows(self, weight: torch.Tensor, first_row: int) -> None:
        self.weight[first_row : first_row + len(weight)].copy_(weight)

    def load_bias(self, bias: torch.Tensor, first_row: int) -> None:
        if self.bias is None:
            raise ValueError(f"this product of {self.n_out} rows was made without a bias")
        self.bias[first_row : first_row + len(bias)].copy_(bias)

    def __call__(self, x: Operand, out: torch.Tensor) -> torch.Tensor:
        assert isinstance(x, torch.Tensor)  # it has no operands of its own
        self._product(x, self.weight, self.bias, out)
        return out


class TorchOps(Ops):
    """Plain torch operations with replaceable product and norm functions.

    With a product other than torch's own, `batch_invariant` is True: everything else here is
    elementwise, except sums over a row, which then use a fixed pairwise order. This holds on CUDA;
    torch's CPU loops treat the end of a tensor differently from the rest.

    Args:
        device: where tensors live.
        dtype: of weights and activations.
        product: `product(x, weight, bias, out)` writes x @ weight.T + bias into out; unless it is
            torch's own, a row's bits must not depend on the other rows.
        norm: `norm(x, weight, eps, out, residual)`, one kernel instead of many small steps; a
            row's bits must not depend on the other rows.
    """

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        product: Product = plain_product,
        norm: Norm | None = None,
    ) -> None:
        self.device = device
        self.weight_dtype = dtype
        self.activation_dtype = dtype
        self.batch_invariant = product is not plain_product
        if product is plain_product:
            self.logits_dtype = dtype  # torch's product writes no other
        self._product = product
        self._norm: Norm = norm if norm is not None else self._plain_norm

    def linear(
        self,
        n_out: int,
        n_in: int,
        *,
        bias: bool,
        source_dtype: torch.dtype,
        kinds: tuple[str, ...] = (),
    ) -> Linear:
        options: dict[str, object] = {"dtype": self.weight_dtype, "device": self.device}
        return TorchLinear(n_out, n_in, bias, self._product, options)

    def embed(
        self, ids: torch.Tensor, table: Table, scale: float, out: torch.Tensor
    ) -> torch.Tensor:
        assert isinstance(table, torch.Tensor)  # here there are no others
        torch.index_select(table, 0, ids, out=out)
        if scale != 1.0:
            # Rounded to the weights' dtype first, as in training.
            out.mul_(torch.tensor(scale, dtype=self.weight_dtype).item())
        return out

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float, out: Written) -> Written:
        self._norm(x, weight, eps, out, None)
        return out

    def add_rms_norm(
        self,
        x: torch.Tensor,
        residual: torch.Tensor,
        weight: torch.Tensor,
        eps: float,
        out: Written,
    ) -> Written:
        self._norm(x, weight, eps, out, residual)
        return out

    def add(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return residual.add_(x)

    def norm_rope(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        rope: RopeTable | None,
        weight: torch.Tensor | None,
        eps: float,
    ) -> None:
        y = x.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        if weight is not None:
            rows = y.view(-1, weight.numel())
            self._norm(rows, weight, eps, rows, None)
        if rope is not None:
            y = _rotated(y, rope.cos[positions, None], rope.sin[positions, None])
        x.copy_(y)

    def gated(self, gate_up: torch.Tensor, activation: str, out: Written) -> Written:
        assert isinstance(out, torch.Tensor)  # its products take no others
        gate, up = gate_up.chunk(2, dim=-1)
        if activation == "silu":
            torch.mul(functional.silu(gate), up, out=out)
            return out
        if activation == "gelu_tanh":
            torch.mul(functional.gelu(gate, approximate="tanh"), up, out=out)
            return out
        raise ValueError(f"unknown activation {activation!r}; use 'silu' or 'gelu_tanh'")

    def _plain_norm(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        eps: float,
        out: Operand,
        residual: torch.Tensor | None,
    ) -> None:
        assert isinstance(out, torch.Tensor)  # its products take no others
        wide = (x if residual is None else residual.add_(x)).float()
        squares = wide * wide
        if self.batch_invariant:
            mean = _sum_by_halves(squares) / x.shape[-1]
        else:
            mean = squares.mean(-1, keepdim=True)
        out.copy_(wide * torch.rsqrt(mean + eps) * weight)


def _sum_by_halves(x: torch.Tensor) -> torch.Tensor:
    """Sum over the last dimension, kept; torch.sum's order depends on the number of rows."""
    while (width := x.shape[-1]) > 1:
        half = width // 2
        folded = x[..., :half] + x[..., half : 2 * half]
        if width % 2:
            folded[..., :1] += x[..., -1:]
        x = folded
    return x


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the first 2 * width numbers of each head, one half against the other."""
    width = cos.shape[-1]
    first, second, rest = x[..., :width], x[..., width : 2 * width], x[..., 2 * width :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)
