"""Sequences in pages, with NaN wherever no key was written."""

from dataclasses import dataclass, replace
from itertools import accumulate

import torch

from flipfast.engine.attention.base import AttentionMetadata


@dataclass
class Step:
    """Queries of some sequences, their pages, and where all of it lies."""

    query: torch.Tensor
    key_pages: torch.Tensor
    value_pages: torch.Tensor
    metadata: AttentionMetadata

    @property
    def index(self):
        m = self.metadata
        return m.cu_seqlens_q, m.seq_lens, m.block_tables

    @property
    def longest(self):
        m = self.metadata
        return {"max_seqlen_q": m.max_seqlen_q, "max_seq_len": m.max_seq_len}

    def part(self, rows):
        """The step of some of the sequences alone: (sequence, first query, end) of each."""
        m = self.metadata
        starts = m.cu_seqlens_q.tolist()
        pieces = [self.query[starts[i] + a : starts[i] + b] for i, a, b in rows]
        behind = [starts[i + 1] - starts[i] - b for i, _, b in rows]
        lens = [int(m.seq_lens[i]) - cut for (i, _, _), cut in zip(rows, behind, strict=True)]
        q_lens = [b - a for _, a, b in rows]
        tables = m.block_tables[[i for i, _, _ in rows]]
        metadata = _metadata(q_lens, lens, tables)
        return replace(self, query=torch.cat(pieces), metadata=metadata)


def make_step(
    q_lens,
    seq_lens,
    *,
    n_heads=4,
    n_kv_heads=2,
    head_dim=16,
    page_size=16,
    dtype=torch.float32,
    device="cpu",
    seed=0,
    behind=2**30,
):
    """Random queries and keys; page numbers behind a sequence's last page are `behind`."""
    generator = torch.Generator().manual_seed(seed)
    counts = [-(-length // page_size) for length in seq_lens]
    shape = (sum(counts) + 2, page_size, n_kv_heads, head_dim)
    pages = [torch.full(shape, float("nan"), dtype=dtype) for _ in range(2)]
    order = (torch.randperm(sum(counts), generator=generator) + 1).split(counts)
    tables = torch.full((len(counts), max(counts) + 1), behind, dtype=torch.int32)
    for i, (length, own) in enumerate(zip(seq_lens, order, strict=True)):
        tables[i, : len(own)] = own
        at = torch.arange(length)
        for side in pages:
            new = torch.randn(length, n_kv_heads, head_dim, generator=generator)
            side[own[at // page_size], at % page_size] = new.to(dtype)
    query = torch.randn(sum(q_lens), n_heads, head_dim, generator=generator).to(dtype)
    return Step(
        query.to(device),
        *(side.to(device) for side in pages),
        _metadata(q_lens, seq_lens, tables.to(device)),
    )


def _metadata(q_lens, seq_lens, tables):
    def numbers(values):
        return torch.tensor(values, dtype=torch.int32, device=tables.device)

    return AttentionMetadata(
        cu_seqlens_q=numbers([0, *accumulate(q_lens)]),
        seq_lens=numbers(seq_lens),
        block_tables=tables,
        slot_mapping=torch.zeros(sum(q_lens), dtype=torch.int64, device=tables.device),
        max_seqlen_q=max(q_lens),
        max_seq_len=max(seq_lens),
    )
