"""Attention by the project's own kernel, `flipfast_kernels.paged_attention`."""

from __future__ import annotations

import torch

from flipfast.engine.attention._pages import PagedBackend, check_served, cuda_capability
from flipfast.engine.attention.base import AttentionMetadata, AttentionShape, LayerCache
from flipfast_kernels import kv_cache, paged_attention
from flipfast_kernels.attention_checks import MAX_HEAD_DIM
from flipfast_kernels.launch import FLOATS


class Backend(PagedBackend):
    """Paged FlashAttention in Triton; a token's bits depend on its sequence alone."""

    page_size = 16
    batch_invariant = True

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__(shape)
        check_served(
            "triton_paged",
            shape,
            dtypes=FLOATS,
            max_head_dim=MAX_HEAD_DIM,
            head_dim_step=1,
            softcap=True,
        )
        if shape.device.type == "cuda" or not paged_attention.runs_on(shape.device):
            cuda_capability("triton_paged", shape, lowest=80)

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        cache: LayerCache,
        slot_mapping: torch.Tensor,
    ) -> None:
        kv_cache.write_kv(key, value, *cache, slot_mapping, validate=False)

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
        return paged_attention.paged_attention(
            query,
            *cache,
            metadata.cu_seqlens_q,
            metadata.seq_lens,
            metadata.block_tables,
            max_seqlen_q=metadata.max_seqlen_q,
            max_seq_len=metadata.max_seq_len,
            scale=scale,
            window=window,
            softcap=softcap,
            out=out,
            sections=metadata.sections,
            validate=False,
        )
