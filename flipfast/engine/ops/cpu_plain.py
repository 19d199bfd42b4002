"""The CPU's operations with torch's own matrix products, whose bits depend on the batch."""

from __future__ import annotations

import torch

from flipfast.engine.ops.base import Linear
from flipfast.engine.ops.cpu import CpuOps
from flipfast.engine.ops.torch_ops import TorchLinear


class PlainProductOps(CpuOps):
    """CpuOps for deterministic=False: products by oneDNN or MKL, depending on torch's build.

    Args:
        weight_dtype: float32 or bfloat16; activations are rounded to it before each product.
        threads, weights: as for CpuOps; blocks are multiplied by its kernels.
    """

    def __init__(
        self, weight_dtype: torch.dtype, threads: int | None = None, weights: str | None = None
    ) -> None:
        super().__init__(weight_dtype, threads, weights)
        self.batch_invariant = False

    def _floats(self, n_out: int, n_in: int, bias: bool, source_dtype: torch.dtype) -> Linear:
        return TorchLinear(n_out, n_in, bias, _product, {"dtype": self.weight_dtype})


def _product(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor
) -> torch.Tensor:
    return out.copy_(torch.nn.functional.linear(x.to(weight.dtype), weight, bias))
