"""Attention in plain torch, on any device: the reference for the other backends."""

from __future__ import annotations

import torch

from flipfast.engine.attention._pages import PagedBackend
from flipfast.engine.attention.base import AttentionMetadata, LayerCache

_QUERY_BLOCK = 128  # queries at once: bounds the score matrix of a long prompt


class Backend(PagedBackend):
    """Computes one sequence at a time, in float32."""

    page_size = 16
    batch_invariant = False

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
        starts: list[int] = metadata.cu_seqlens_q.tolist()
        lengths: list[int] = metadata.seq_lens.tolist()
        for i, length in enumerate(lengths):
            n_pages = -(-length // self.page_size)
            table = metadata.block_tables[i, :n_pages].long()
            key, value = (pages[table].flatten(0, 1)[:length].float() for pages in cache)
            for start in range(starts[i], starts[i + 1], _QUERY_BLOCK):
                end = min(start + _QUERY_BLOCK, starts[i + 1])
                last = length - (starts[i + 1] - end)
                rows = _attend(query[start:end].float(), key, value, last, scale, window, softcap)
                out[start:end] = rows
        return out


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    end: int,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """Attention, in float32, of queries at positions up to `end` (exclusive) over all keys."""
    n, n_heads, head_dim = query.shape
    grouped = query.view(n, key.shape[1], -1, head_dim)
    scores = torch.einsum("qhgd,khd->hgqk", grouped, key) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    own = torch.arange(end - n, end, device=query.device)[:, None]
    other = torch.arange(len(key), device=query.device)[None]
    hidden = other > own
    if window is not None:
        hidden |= other <= own - window
    weights = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)
    return torch.einsum("hgqk,khd->qhgd", weights, value).reshape(n, n_heads * head_dim)
