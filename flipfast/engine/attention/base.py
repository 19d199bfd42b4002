"""The attention interface: paged KV caches, and queries of many sequences in one batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch

LayerCache = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class AttentionShape:
    """The properties of a model that determine whether a backend supports it.

    Attributes:
        n_heads: number of query heads.
        n_kv_heads: number of key and value heads; query head h reads key head
            h * n_kv_heads // n_heads.
        head_dim: numbers per head.
        dtype: of keys and values in the cache.
        device: where the cache lives.
        softcap: whether any layer caps its scores.
    """

    n_heads: int
    n_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    softcap: bool = False


class Section(NamedTuple):
    """Some of a step's sequences, which follow each other.

    Attributes:
        n_seqs: how many.
        n_tokens: in the step, of all of them.
        max_seqlen_q: upper bound on the tokens that one of them has in the step.
    """

    n_seqs: int
    n_tokens: int
    max_seqlen_q: int


@dataclass(frozen=True)
class AttentionMetadata:
    """Layout of one step's tokens; tensors are on the backend's device.

    The step's tokens are the last of their sequences: with q = cu_seqlens_q[i + 1] -
    cu_seqlens_q[i], sequence i's queries are at positions seq_lens[i] - q to seq_lens[i] - 1.

    Attributes:
        cu_seqlens_q: (n_seqs + 1,) int32, where each sequence's tokens start in the step, then
            their total number.
        seq_lens: (n_seqs,) int32, tokens of each sequence in the cache, this step's included.
        block_tables: (n_seqs, any width) int32, page numbers; entries after a sequence's last
            page may hold anything.
        slot_mapping: (n_tokens,) int64, page * page_size + offset for each token of the step.
        max_seqlen_q: upper bound on the tokens that a sequence has in the step.
        max_seq_len: upper bound on seq_lens.
        sections: where the tokens a sequence has in the step differ much, how many of the sequences
            follow each other that are similar in that; () if all are.
    """

    cu_seqlens_q: torch.Tensor
    seq_lens: torch.Tensor
    block_tables: torch.Tensor
    slot_mapping: torch.Tensor
    max_seqlen_q: int
    max_seq_len: int
    sections: tuple[Section, ...] = ()


class AttentionBackend(ABC):
    """Causal attention of a step's tokens over the pages of their sequences.

    A backend is one file in this folder with a class `Backend`. Its constructor takes an
    `AttentionShape`, imports what it needs, and raises `ConfigError` or `MissingDependencyError`
    with the reason if it does not support the shape. It owns the layout of its pages.

    Attributes:
        page_size: tokens per page.
        batch_invariant: whether a token's result has the same bits whatever else is in the step
            and however its sequence was split into steps.
        plain_pages: whether keys and values are two tensors (pages, page_size, n_kv_heads,
            head_dim) of one dtype and stride, with page_size a power of two, to which `Ops` may
            also write.
    """

    page_size: int
    batch_invariant: bool
    plain_pages: bool = False

    def __init__(self, shape: AttentionShape) -> None:
        self.shape = shape

    @abstractmethod
    def allocate(self, n_pages: int) -> LayerCache:
        """Allocate key and value pages of one layer, with any initial contents."""

    @abstractmethod
    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        cache: LayerCache,
        slot_mapping: torch.Tensor,
    ) -> None:
        """Write a step's keys and values to their slots.

        Args:
            key, value: (n_tokens, n_kv_heads, head_dim) with stride 1 in the last dimension; any
                float dtype, rounded to the cache's.
            cache: the layer's cache, from `allocate`.
            slot_mapping: (n_tokens,) int64, without duplicates except slots of page 0, which no
                sequence owns.
        """

    @abstractmethod
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
        """Attention of every query over the keys up to its own position, already written.

        Scores are scale * q.k, capped to softcap * tanh(scores / softcap) if there is a softcap,
        over the last `window` positions (the query's own included) if there is a window.

        Args:
            query: (n_tokens, n_heads, head_dim) with stride 1 in the last dimension.
            cache: the layer's cache, from `allocate`.
            metadata: of the step.
            out: (n_tokens, n_heads * head_dim), contiguous, overwritten and returned.
        """

    def copy_pages(self, cache: LayerCache, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copy whole pages of a layer to other pages.

        Args:
            cache: the layer's cache, from `allocate`, with pages along the first dimension; a
                backend with another layout overrides this method.
            sources: (n,) int64, page numbers, duplicates allowed.
            targets: (n,) int64, distinct page numbers; all sources are read before any write.
        """
        for pages in cache:
            pages.index_copy_(0, targets, pages.index_select(0, sources))

    def page_bytes(self) -> int:
        """Bytes of one page of keys and values of one layer."""
        s = self.shape
        return 2 * self.page_size * s.n_kv_heads * s.head_dim * s.dtype.itemsize
