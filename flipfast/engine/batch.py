"""Lays a step's plan out as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from flipfast.engine.attention.base import AttentionMetadata, Section
from flipfast.engine.sequence import MAX_DRAFT, TOKEN_BYTES, Sequence
from flipfast.engine.step_plan import Chunk, StepPlan
from flipfast.engine.transfer import Array, send

_FIRST_WIDTH = 64  # pages of a sequence, before the tables grow


@dataclass(frozen=True)
class StepBatch:
    """A step's inputs on the device.

    Attributes:
        input_ids: (n_tokens,) int64; 0 for tokens that have not reached the host yet.
        fed_slots: (n_tokens,) int64, the slots of which such rows take the token sampled last, and
            -1 for other rows; None if there are none.
        positions: (n_tokens,) int64.
        head_rows: (n_logits + n_scored,) int64, the rows that the LM head runs on. First those
            whose logits give an output token: the last one of each sampling sequence, and before
            it those that a drafted token follows. Then those that give the probability of a target,
            chunk by chunk.
        n_logits: how many rows give an output token.
        cu_logits: (n_samples + 1,) int32, where each sampling sequence's rows start among those,
            then their total number; None if each sequence has one.
        sample_slots: (n_samples,) int64, the slots of the sampling sequences.
        output_addresses: (n_samples,) int64, device addresses for an int32 copy of each sequence's
            output tokens, 0 for no copy; None if there are no output rows at all.
        targets: (n_scored,) int64; None if there are none.
        metadata: for attention.
    """

    input_ids: torch.Tensor
    fed_slots: torch.Tensor | None
    positions: torch.Tensor
    head_rows: torch.Tensor
    n_logits: int
    cu_logits: torch.Tensor | None
    sample_slots: torch.Tensor
    output_addresses: torch.Tensor | None
    targets: torch.Tensor | None
    metadata: AttentionMetadata

    @classmethod
    def of(
        cls,
        tensors: Mapping[str, torch.Tensor],
        *,
        n_logits: int,
        max_seqlen_q: int,
        max_seq_len: int,
        sections: tuple[Section, ...] = (),
    ) -> StepBatch:
        """A batch of the tensors of its own and its metadata's attributes, by their names."""
        return cls(
            input_ids=tensors["input_ids"],
            fed_slots=tensors.get("fed_slots"),
            positions=tensors["positions"],
            head_rows=tensors["head_rows"],
            n_logits=n_logits,
            cu_logits=tensors.get("cu_logits"),
            sample_slots=tensors["sample_slots"],
            output_addresses=tensors.get("output_addresses"),
            targets=tensors.get("targets"),
            metadata=AttentionMetadata(
                cu_seqlens_q=tensors["cu_seqlens_q"],
                seq_lens=tensors["seq_lens"],
                block_tables=tensors["block_tables"],
                slot_mapping=tensors["slot_mapping"],
                max_seqlen_q=max_seqlen_q,
                max_seq_len=max_seq_len,
                sections=sections,
            ),
        )

    @property
    def logit_rows(self) -> torch.Tensor:
        """The rows whose logits give an output token."""
        return self.head_rows[: self.n_logits]


@dataclass(frozen=True)
class HostBatch:
    """A step's inputs on the host.

    Attributes:
        arrays: the tensors of a `StepBatch`, by name.
        n_logits, max_seqlen_q, max_seq_len, sections: as in `StepBatch` and its metadata.
        row_slots: (n_tokens,) int64, the slot of each row's sequence.
    """

    arrays: dict[str, Array]
    n_logits: int
    max_seqlen_q: int
    max_seq_len: int
    row_slots: Array
    sections: tuple[Section, ...] = ()

    @property
    def n_tokens(self) -> int:
        """Rows of the step."""
        return len(self.arrays["input_ids"])

    def to(self, device: torch.device) -> StepBatch:
        """The batch on the device, to which it is copied in one transfer."""
        return StepBatch.of(
            send(self.arrays, device),
            n_logits=self.n_logits,
            max_seqlen_q=self.max_seqlen_q,
            max_seq_len=self.max_seq_len,
            sections=self.sections,
        )


class BatchBuilder:
    """Lays out plans, and keeps the pages of each slot's sequence from step to step.

    Args:
        page_size: tokens per page.
        max_seqs: number of slots.
        output_rows: whether sequences may have an output_row.
    """

    def __init__(self, page_size: int, max_seqs: int, *, output_rows: bool = False) -> None:
        self._page_size = page_size
        self._output_rows = output_rows
        self._tables = np.zeros((max_seqs, _FIRST_WIDTH), dtype=np.int32)
        self._pages: list[list[int]] = [[] for _ in range(max_seqs)]  # as they are in the tables
        self._n_pages = [0] * max_seqs

    def build(self, plan: StepPlan) -> HostBatch:
        """Lay out a plan's chunks, of which there is at least one, one after another."""
        chunks = plan.chunks
        sequences, starts_, sizes, samples, *_ = zip(*chunks, strict=True)
        slots = np.array([sequence.slot for sequence in sequences])
        self._note_pages(sequences)
        starts = np.array(starts_)
        drafted = plan.drafted
        n_rows = np.array([chunk.n_rows for chunk in chunks] if drafted else sizes)
        input_ids = _input_ids(chunks, int(n_rows.sum()))
        ends = n_rows.cumsum()
        seq_lens = starts + n_rows
        if len(input_ids) == len(chunks):  # the usual step: a row for each sequence
            positions, row_slots = starts, slots
        else:
            positions = np.arange(len(input_ids)) - np.repeat(ends - seq_lens, n_rows)
            row_slots = np.repeat(slots, n_rows)
        max_seq_len = int(seq_lens.max())
        pages = self._tables[row_slots, positions // self._page_size].astype(np.int64)
        arrays = {
            "input_ids": input_ids,
            "positions": positions,
            "slot_mapping": pages * self._page_size + positions % self._page_size,
            "cu_seqlens_q": np.concatenate([[0], ends]).astype(np.int32),
            "seq_lens": seq_lens.astype(np.int32),
            "block_tables": self._tables[slots, : -(-max_seq_len // self._page_size)],
        }
        unknown = input_ids < 0
        if unknown.any():
            arrays["fed_slots"] = np.where(unknown, row_slots, -1)
            input_ids[unknown] = 0
        sampling = np.flatnonzero(samples)
        arrays["sample_slots"] = slots[sampling]
        rows = ends[sampling] - 1
        if drafted:
            n_logits = np.array([1 + len(chunks[i].draft) for i in sampling.tolist()])
            cu_logits = np.concatenate([[0], n_logits.cumsum()])
            rows = np.arange(cu_logits[-1]) + np.repeat(rows + 1 - cu_logits[1:], n_logits)
            arrays["cu_logits"] = cu_logits.astype(np.int32)
        scored, targets = _scored(chunks, ends.tolist())
        arrays["head_rows"] = np.concatenate([rows, scored]) if targets else rows
        if targets:
            arrays["targets"] = np.array(targets)
        if self._output_rows:
            sampled = [chunk.sequence for chunk in chunks if chunk.samples]
            arrays["output_addresses"] = np.array(
                [_output_address(sequence) for sequence in sampled], dtype=np.int64
            )
        return HostBatch(
            arrays,
            n_logits=len(rows),
            max_seqlen_q=int(n_rows.max()),
            max_seq_len=max_seq_len,
            row_slots=row_slots,
            sections=_sections(n_rows),
        )

    def _note_pages(self, sequences: tuple[Sequence, ...]) -> None:
        """Bring the tables up to date: a list of pages only grows, until another takes its slot."""
        for sequence in sequences:
            slot, pages = sequence.slot, sequence.pages
            known = self._n_pages[slot] if self._pages[slot] is pages else 0
            if known == len(pages):
                continue
            missing = len(pages) - self._tables.shape[1]
            if missing > 0:
                more = max(missing, self._tables.shape[1])
                self._tables = np.pad(self._tables, ((0, 0), (0, more)))
            self._tables[slot, known : len(pages)] = pages[known:]
            self._pages[slot], self._n_pages[slot] = pages, len(pages)


def _input_ids(chunks: list[Chunk], n_rows: int) -> NDArray[np.int64]:
    """The step's tokens, -1 for those that have not reached the host."""
    if n_rows == len(chunks):
        ids = [_id_at(chunk.sequence, chunk.start) for chunk in chunks]
        return np.array(ids, dtype=np.int64)
    found = np.empty(n_rows, dtype=np.int64)
    end = 0
    for chunk in chunks:
        sequence, (start, end) = chunk.sequence, (end, end + chunk.n_rows)
        if chunk.n > 1:
            found[start : start + chunk.n - 1] = sequence.known_ids(
                chunk.start, chunk.start + chunk.n - 1
            )
        last = start + chunk.n - 1
        found[last] = _id_at(sequence, chunk.start + chunk.n - 1)
        found[last + 1 : end] = chunk.draft
    return found


def _id_at(sequence: Sequence, position: int) -> int:
    """The token at a position, -1 if it has not reached the host."""
    at = position - sequence.n_prompt
    if at < 0:
        return sequence.prompt_ids[position]
    output = sequence.output_ids
    return output[at] if at < len(output) else -1


def _sections(n_tokens: NDArray[np.int64]) -> tuple[Section, ...]:
    """The first sequences, which decode, and those from the first longer chunk on.

    A plan has running sequences first, so few that decode are behind a chunk of a prompt.
    """
    longer = n_tokens > 1 + MAX_DRAFT
    n = int(longer.argmax())
    if n == 0:
        return ()
    return tuple(Section(len(x), int(x.sum()), int(x.max())) for x in (n_tokens[:n], n_tokens[n:]))


def _scored(chunks: list[Chunk], ends: list[int]) -> tuple[list[int], list[int]]:
    """The rows of a step that give a target's probability, and their targets."""
    rows: list[int] = []
    targets: list[int] = []
    for chunk, end in zip(chunks, ends, strict=True):
        if chunk.sequence.targets and chunk.n_scored:
            last = chunk.start + chunk.n - chunk.sequence.first_scored
            rows += range(end - chunk.n_scored, end)
            targets += chunk.sequence.targets[last - chunk.n_scored : last]
    return rows, targets


def _output_address(sequence: Sequence) -> int:
    """Device address for the token that a step samples for a sequence; 0 for no copy."""
    row = sequence.output_row
    return 0 if row is None else row.data_ptr() + TOKEN_BYTES * (sequence.n_sampled - 1)
