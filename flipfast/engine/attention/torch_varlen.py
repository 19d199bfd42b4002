"""PyTorch's own paged FlashAttention: `torch.nn.attention.varlen`, torch 2.13 or newer."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch

from flipfast.engine.attention._pages import PagedBackend, check_served, cuda_capability
from flipfast.engine.attention.base import AttentionMetadata, AttentionShape, LayerCache
from flipfast.errors import ConfigError

_NEEDED = ("block_table", "seqused_k", "num_splits", "enable_gqa")


class Backend(PagedBackend):
    """FlashAttention 2 as shipped with torch, without splitting over keys.

    Batch-invariant: with pages, torch always launches the split-KV kernel, whose tile size depends
    only on the head size; with num_splits=1, it reads key blocks at fixed positions in a fixed
    order, and blocks that a row does not see do not affect it. By default, torch would choose the
    number of splits by the size of the batch.
    """

    page_size = 256
    batch_invariant = True

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__(shape)
        self._varlen_attn = _varlen_attn()
        cuda_capability("torch_varlen", shape, lowest=80)
        check_served(
            "torch_varlen",
            shape,
            dtypes=(torch.bfloat16, torch.float16),
            max_head_dim=256,
            head_dim_step=8,
            softcap=False,
        )

    def attend(
        self,
        query: torch.Tensor,
        cache: LayerCache,
        metadata: AttentionMetadata,
        out: torch.Tensor,
        *,
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        if softcap is not None:
            raise ConfigError(f"torch_varlen cannot cap attention scores, here to {softcap}")
        result = self._varlen_attn(
            query,
            *cache,
            metadata.cu_seqlens_q,
            # Only its shape matters: seqused_k and block_table define where the keys are.
            metadata.cu_seqlens_q,
            metadata.max_seqlen_q,
            metadata.max_seq_len,
            scale=scale,
            window_size=(-1 if window is None else window - 1, 0),
            enable_gqa=self.shape.n_heads != self.shape.n_kv_heads,
            seqused_k=metadata.seq_lens,
            block_table=metadata.block_tables,
            num_splits=1,
        )
        # Not varlen_attn_out: one-token steps with grouped heads work on a rearranged copy.
        return out.copy_(result.flatten(1))


def _varlen_attn() -> Any:
    """torch's function; raises ConfigError if it cannot read pages."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError as error:
        raise ConfigError(
            f"torch {torch.__version__} has no torch.nn.attention.varlen ({error}): torch_varlen "
            "needs torch 2.13 or newer"
        ) from error
    parameters = signature(varlen_attn).parameters
    missing = [name for name in _NEEDED if name not in parameters]
    if missing:
        raise ConfigError(
            f"varlen_attn of torch {torch.__version__} has no {', '.join(missing)}: torch_varlen "
            "needs torch 2.13 or newer"
        )
    return varlen_attn
