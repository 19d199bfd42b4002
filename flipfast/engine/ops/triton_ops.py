"""The operations on CUDA, with the project's own Triton kernels."""

from __future__ import annotations

from functools import partial

import torch

from flipfast.engine.ops.base import KeyValueStore, Linear, RopeTable
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
    """

    def __init__(
        self, device: torch.device, dtype: torch.dtype, product: Product = _linear
    ) -> None:
        super().__init__(device, dtype, product, _rms_norm)

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

    def gated(self, gate_up: torch.Tensor, activation: str, out: torch.Tensor) -> torch.Tensor:
        return swiglu.gated(gate_up, activation, out, validate=False)


def _tables(rope: RopeTable | None) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    return (None, None) if rope is None else (rope.cos, rope.sin)
