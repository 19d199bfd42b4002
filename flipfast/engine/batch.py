"""Converts a step's plan to device tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flipfast.engine.attention.base import AttentionMetadata, Section
from flipfast.engine.sequence import MAX_DRAFT, Sequence
from flipfast.engine.step_plan import Chunk, StepPlan

_INT32 = 4  # bytes
_Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class StepBatch:
    """A step's inputs on the device.

    Attributes:
        input_ids: (n_tokens,) int64; 0 for tokens that have not reached the host yet.
        positions: (n_tokens,) int64.
        fed_rows: (n_fed,) int64, rows of input_ids whose token is the last one sampled.
        fed_slots: (n_fed,) int64, the slots of their sequences.
        logit_rows: (n_logits,) int64, the rows whose logits give an output token: the last one
            of each sampling sequence, and before it those that a drafted token follows.
        cu_logits: (n_samples + 1,) int32, where each sampling sequence's logit_rows start, then
            their total number; None if each sequence has one.
        scored_rows: (n_scored,) int64, the rows that give the probability of a target, chunk by
            chunk; None if no row does.
        targets: (n_scored,) int64, the targets; None like scored_rows.
        sample_slots: (n_samples,) int64, the slots of the sampling sequences.
        output_addresses: (n_samples,) int64, device addresses for an int32 copy of each sequence's
            output tokens, 0 for no copy; None if no sequence wants one.
        metadata: for attention.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    fed_rows: torch.Tensor
    fed_slots: torch.Tensor
    logit_rows: torch.Tensor
    cu_logits: torch.Tensor | None
    scored_rows: torch.Tensor | None
    targets: torch.Tensor | None
    sample_slots: torch.Tensor
    output_addresses: torch.Tensor | None
    metadata: AttentionMetadata

    @property
    def head_rows(self) -> torch.Tensor:
        """The rows that the LM head runs on: the logit_rows, then the scored_rows."""
        if self.scored_rows is None:
            return self.logit_rows
        return torch.cat([self.logit_rows, self.scored_rows])


def build_batch(plan: StepPlan, page_size: int, device: torch.device) -> StepBatch:
    """Lay out a plan's chunks one after another, without padding.

    Args:
        plan: at least one chunk.
        page_size: tokens per page.
        device: where the tensors go; copies to a CUDA device do not block.
    """
    chunks = plan.chunks
    n_tokens = np.array([chunk.n_rows for chunk in chunks])
    starts = np.array([chunk.start for chunk in chunks])
    tables = _block_tables([chunk.sequence.pages for chunk in chunks])
    ends = np.cumsum(n_tokens)
    row_chunk = np.repeat(np.arange(len(chunks)), n_tokens)
    positions = np.arange(ends[-1]) - np.repeat(ends - n_tokens - starts, n_tokens)
    pages = tables[row_chunk, positions // page_size]
    input_ids = np.zeros(ends[-1], dtype=np.int64)
    fed_rows, fed_slots = [], []
    for chunk, end in zip(chunks, ends.tolist(), strict=True):
        start = end - chunk.n_rows
        known = chunk.sequence.known_tokens(chunk.start, chunk.start + chunk.n)
        input_ids[start : start + len(known)] = known
        if chunk.draft:
            input_ids[start + chunk.n : end] = chunk.draft
        elif len(known) < chunk.n:
            fed_rows.append(end - 1)
            fed_slots.append(chunk.sequence.slot)
    sampling = [i for i, chunk in enumerate(chunks) if chunk.samples]
    n_logits = np.array([1 + len(chunks[i].draft) for i in sampling], dtype=np.int64)
    cu_logits = np.concatenate([[0], np.cumsum(n_logits)])
    logit_rows = np.arange(cu_logits[-1]) + np.repeat(ends[sampling] - cu_logits[1:], n_logits)
    addresses = [_output_address(chunks[i].sequence) for i in sampling]
    seq_lens = starts + n_tokens
    scored_rows, targets = _scored(chunks, ends.tolist())

    def put(values: Any, dtype: type[np.signedinteger[Any]]) -> torch.Tensor:
        return to_device(torch.from_numpy(np.asarray(values, dtype=dtype)), device)

    return StepBatch(
        input_ids=put(input_ids, np.int64),
        positions=put(positions, np.int64),
        fed_rows=put(fed_rows, np.int64),
        fed_slots=put(fed_slots, np.int64),
        logit_rows=put(logit_rows, np.int64),
        cu_logits=put(cu_logits, np.int32) if len(logit_rows) > len(sampling) else None,
        scored_rows=put(scored_rows, np.int64) if targets else None,
        targets=put(targets, np.int64) if targets else None,
        sample_slots=put([chunks[i].sequence.slot for i in sampling], np.int64),
        output_addresses=put(addresses, np.int64) if any(addresses) else None,
        metadata=AttentionMetadata(
            cu_seqlens_q=put(np.concatenate([[0], ends]), np.int32),
            seq_lens=put(seq_lens, np.int32),
            block_tables=put(tables, np.int32),
            slot_mapping=put(pages * page_size + positions % page_size, np.int64),
            max_seqlen_q=int(n_tokens.max()),
            max_seq_len=int(seq_lens.max()),
            sections=_sections(n_tokens),
        ),
    )


def _sections(n_tokens: _Ints) -> tuple[Section, ...]:
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
        if chunk.n_scored:
            last = chunk.start + chunk.n - chunk.sequence.first_scored
            rows += range(end - chunk.n_scored, end)
            targets += chunk.sequence.targets[last - chunk.n_scored : last]
    return rows, targets


def _output_address(sequence: Sequence) -> int:
    """Device address for the token that a step samples for a sequence; 0 for no copy."""
    row = sequence.output_row
    return 0 if row is None else row.data_ptr() + _INT32 * (sequence.n_sampled - 1)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a host tensor to the device, through pinned memory so that the host does not wait."""
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def _block_tables(pages: list[list[int]]) -> _Ints:
    tables = np.zeros((len(pages), max(map(len, pages))), dtype=np.int64)
    for row, numbers in zip(tables, pages, strict=True):
        row[: len(numbers)] = numbers
    return tables
