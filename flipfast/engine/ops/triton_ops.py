"""The operations on CUDA, with the project's own Triton kernels."""

from __future__ import annotations

from functools import partial

import torch

from flipfast.engine.ops.base import KeyValueStore, Linear, RopeTable, Written
from flipfast.engine.ops.blocks import FP8_GROUPS, FP8_ROWS
from flipfast.engine.ops.fp8 import Fp8Linear, quantising_bytes
from flipfast.engine.ops.torch_ops import Product, TorchLinear, TorchOps
from flipfast_kernels import norm_rope, swiglu
from flipfast_kernels.gemm import linear
from flipfast_kernels.lm_head import lm_head
from flipfast_kernels.norm import rms_norm

# The engine makes tensors that fit, and checks are a quarter of the host's time in a launch.
_linear = partial(linear, validate=False)
_rms_norm = partial(rms_norm, validate=False)


class TritonOps(TorchOps):
    """Batch-invariant Triton kernels; embedding and addition stay torch's.

    Args:
        device: a CUDA device, or any device if Triton runs in interpreter mode.
        dtype: of weights and activations.
        product: as for `TorchOps`; `plain_product` is faster but not batch-invariant.
        fp8: "all" rounds the weights of all products but the head's to 8-bit floats; "kept" keeps
            those that a checkpoint has; "" has none.
    """

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        product: Product = _linear,
        fp8: str = "",
    ) -> None:
        super().__init__(device, dtype, product, _rms_norm)
        self._fp8 = fp8

    def linear(
        self,
        n_out: int,
        n_in: int,
        *,
        bias: bool,
        source_dtype: torch.dtype,
        kinds: tuple[str, ...] = (),
    ) -> Linear:
        """Create a product whose weight is loaded later; see the base class.

        A weight that is of several tensors has 8-bit floats only if all of these do.
        """
        found = set(kinds)
        kept = bool(found) and found <= {FP8_ROWS, FP8_GROUPS}
        if self._fp8 == "all" or (self._fp8 == "kept" and kept):
            kind = FP8_GROUPS if found == {FP8_GROUPS} else FP8_ROWS
            return Fp8Linear(
                n_out, n_in, bias=bias, kind=kind, dtype=self.weight_dtype, device=self.device
            )
        return super().linear(n_out, n_in, bias=bias, source_dtype=source_dtype, kinds=kinds)

    def head(
        self, n_out: int, n_in: int, *, source_dtype: torch.dtype, kinds: tuple[str, ...] = ()
    ) -> Linear:
        """A product of floats: between logits that lie close, 8 bits would choose another token."""
        return super().linear(n_out, n_in, bias=False, source_dtype=source_dtype, kinds=kinds)

    def scratch_bytes(self, rows: int, n_in: int) -> int:
        return quantising_bytes(rows, n_in) if self._fp8 else 0

    def norm_rope(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        rope: RopeTable | None,
        weight: torch.Tensor | None,
        eps: float,
    ) -> None:
        cos, sin = _tables(rope)
        norm_rope.norm_rope(x, positions, cos, sin, weight, eps, validate=False)

    def norm_rope_write(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        positions: torch.Tensor,
        rope: RopeTable | None,
        query_weight: torch.Tensor | None,
        key_weight: torch.Tensor | None,
        eps: float,
        store: KeyValueStore,
        cache: tuple[torch.Tensor, torch.Tensor],
        slot_mapping: torch.Tensor,
    ) -> None:
        """One kernel if the store has plain pages; see the base class."""
        if not store.plain_pages:
            super().norm_rope_write(
                query,
                key,
                value,
                positions,
                rope,
                query_weight,
                key_weight,
                eps,
                store,
                cache,
                slot_mapping,
            )
            return
        norm_rope.norm_rope_write(
            query,
            key,
            value,
            *cache,
            slot_mapping,
            positions,
            *_tables(rope),
            query_weight,
            key_weight,
            eps,
            validate=False,
        )

    def fused_argmax(
        self, head: Linear, x: torch.Tensor, softcap: float | None
    ) -> torch.Tensor | None:
        """The arg-max, computed inside the product; see the base class.

        None with a soft cap: the cap may round two logits to the same value, and a greedy row's
        token would then depend on whether another row of the step is sampled.
        """
        if softcap is not None or not isinstance(head, TorchLinear) or head.bias is not None:
            return None
        return lm_head(x, head.weight, validate=False).best

    def fused_log_prob(
        self, head: Linear, x: torch.Tensor, targets: torch.Tensor, softcap: float | None
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Log-probabilities and arg-max, computed inside the product; see the base class."""
        if not isinstance(head, TorchLinear) or head.bias is not None:
            return None
        found = lm_head(x, head.weight, targets, softcap=softcap, validate=False)
        assert found.target_logprob is not None
        return found.target_logprob, found.best

    def gated(self, gate_up: torch.Tensor, activation: str, out: Written) -> Written:
        swiglu.gated(gate_up, activation, out, validate=False)
        return out


def _tables(rope: RopeTable | None) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    return (None, None) if rope is None else (rope.cos, rope.sin)
