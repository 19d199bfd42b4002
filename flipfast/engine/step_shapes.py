"""The shapes that steps are recorded with: a step is padded to the smallest that it fits."""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

import numpy as np
import torch

from flipfast.engine.batch import HostBatch
from flipfast.engine.transfer import Layout

# Recorded before the first request, longer ones when first needed. Attention takes this many keys
# in one split; with room for more it runs another kernel, with more registers.
_FIRST_LENGTH = 1024
_FEW_ROWS = 8  # of a sequence: its last token and a short draft
# Some more than a group of 8 prompts of 512 tokens beside 256 sequences. The host, which recording
# relieves, is faster than larger steps.
MOST_ROWS = 4608


class StepShape(NamedTuple):
    """What a recorded step has room for.

    Attributes:
        n_tokens, n_seqs, n_logits: numbers of rows, of sequences, and of rows with logits.
        max_seqlen_q, max_seq_len: as in `AttentionMetadata`.
    """

    n_tokens: int
    n_seqs: int
    n_logits: int
    max_seqlen_q: int
    max_seq_len: int

    def layout(self, page_size: int, *, output_rows: bool) -> Layout:
        """Where the arrays of a `HostBatch` lie, with output_addresses if there are output rows."""
        tokens, sequences = (self.n_tokens,), (self.n_seqs,)
        arrays: dict[str, tuple[type[np.signedinteger], tuple[int, ...]]] = {
            "input_ids": (np.int64, tokens),
            "fed_slots": (np.int64, tokens),
            "positions": (np.int64, tokens),
            "slot_mapping": (np.int64, tokens),
            "head_rows": (np.int64, (self.n_logits,)),
            "sample_slots": (np.int64, sequences),
            "cu_seqlens_q": (np.int32, (self.n_seqs + 1,)),
            "seq_lens": (np.int32, sequences),
            "block_tables": (np.int32, (self.n_seqs, -(-self.max_seq_len // page_size))),
        }
        if output_rows:
            arrays["output_addresses"] = (np.int64, sequences)
        if self.max_seqlen_q > 1:
            arrays["cu_logits"] = (np.int32, (self.n_seqs + 1,))
        return Layout(arrays)

    def fill(self, layout: Layout, buffer: torch.Tensor, batch: HostBatch, null_slot: int) -> None:
        """Write a batch that fits into a host buffer, with padding.

        Where each sequence has one token, padding tokens are sequences on the null page; elsewhere
        they belong to none.

        Args:
            layout: of this shape.
            buffer: uint8 (n_bytes,).
            batch: may be empty.
            null_slot: takes what padding samples.
        """
        padding = {"fed_slots": -1, "sample_slots": null_slot, "seq_lens": 1}
        for name, view in layout.on_host(buffer):
            array = batch.arrays.get(name)
            if name == "cu_logits" and array is None:  # without drafts, a row for each sequence
                array = np.arange(len(batch.arrays["sample_slots"]) + 1)
            n = 0 if array is None else len(array)
            if array is not None and array.ndim == 2:
                view[:n, : array.shape[1]] = array  # what is behind a sequence's pages is not read
            elif array is not None:
                view[:n] = array
            if not name.startswith("cu_"):
                view[n:] = padding.get(name, 0)
            elif self.max_seqlen_q == 1:
                view[n:] = np.arange(n, len(view))
            else:
                view[n:] = view[n - 1]


class StepShapes:
    """All shapes that are recorded.

    Args:
        max_seqs, max_tokens: maximum numbers of sequences and rows of a step.
        max_positions: maximum number of tokens of a sequence.
        drafts: whether steps have drafts.
    """

    def __init__(self, *, max_seqs: int, max_tokens: int, max_positions: int, drafts: bool) -> None:
        self._max_seqs = max_seqs
        self._lengths = lengths(max_positions)
        self._decode = ladder(max_seqs)
        self._draft = row_ladder(min(_FEW_ROWS * max_seqs, max_tokens)) if drafts else []
        self._prompt = row_ladder(min(MOST_ROWS, max_tokens))

    def at_load(self) -> list[StepShape]:
        """Those for sequences of usual lengths, the largest of each kind first."""
        length = self._lengths[0]
        return [
            *(self._decode_shape(size, length) for size in reversed(self._decode)),
            *(self._draft_shape(size, length) for size in reversed(self._draft)),
            *(self._prompt_shape(size) for size in reversed(self._prompt)),
        ]

    def largest(self) -> list[StepShape]:
        """The largest of each kind."""
        length = self._lengths[-1]
        return [
            self._decode_shape(self._max_seqs, length),
            *(self._draft_shape(size, length) for size in self._draft[-1:]),
            self._prompt_shape(self._prompt[-1]),
        ]

    def fitting(self, batch: HostBatch) -> StepShape | None:
        """The smallest shape that a step fits; None if it is not to be recorded.

        That holds for steps that score, for those with many rows, and for prompts among which are
        long ones: with these, a step takes the device longer than the host.
        """
        n, n_logits, longest = batch.n_tokens, batch.n_logits, batch.max_seqlen_q
        length = _at_least(self._lengths, batch.max_seq_len)
        if length is None or "targets" in batch.arrays:
            return None
        if longest == 1 and n_logits == n:
            size = _at_least(self._decode, n)
            return None if size is None else self._decode_shape(size, length)
        if longest <= _FEW_ROWS and n_logits == n:
            size = _at_least(self._draft, n)
            return None if size is None else self._draft_shape(size, length)
        size = _at_least(self._prompt, n)
        if size is None or length > self._lengths[0]:
            return None
        shape = self._prompt_shape(size)
        return shape if n_logits <= shape.n_logits else None

    def _decode_shape(self, size: int, length: int) -> StepShape:
        """One token for each sequence, all of them sampling."""
        return StepShape(size, size, size, 1, length)

    def _draft_shape(self, size: int, length: int) -> StepShape:
        """Few tokens for each sequence, all of them with logits."""
        return StepShape(size, self._max_seqs, size, min(_FEW_ROWS, length), length)

    def _prompt_shape(self, size: int) -> StepShape:
        """Any number of tokens for each sequence, with some drafts besides."""
        n_logits, length = min(size, 2 * self._max_seqs), self._lengths[0]
        return StepShape(size, self._max_seqs, n_logits, min(size, length), length)


def ladder(max_seqs: int) -> list[int]:
    """Numbers of sequences: 1, 2, 4, multiples of 8, of 16 from 32, of 32 from 128, max_seqs."""
    sizes = {1, 2, 4, *range(8, 32, 8), *range(32, 128, 16), *range(128, max_seqs, 32), max_seqs}
    return sorted(size for size in sizes if size <= max_seqs)


def row_ladder(most: int) -> list[int]:
    """Numbers of rows: 32, 64, multiples of 128, of 256 from 512, and `most`."""
    sizes = {32, 64, *range(128, 512, 128), *range(512, most, 256), most}
    return sorted(size for size in sizes if size <= most)


def lengths(max_positions: int) -> list[int]:
    """Sequence lengths, each four times the previous one, up to max_positions."""
    found = []
    length = _FIRST_LENGTH
    while length < max_positions:
        found.append(length)
        length *= 4
    return [*found, max_positions]


def _at_least(sizes: list[int], n: int) -> int | None:
    at = bisect_left(sizes, n)
    return sizes[at] if at < len(sizes) else None
