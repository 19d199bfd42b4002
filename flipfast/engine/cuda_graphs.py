"""CUDA graphs of decode steps, so that the host launches one graph instead of every kernel.

Recorded sizes form a ladder; a step with fewer rows is padded to the next size. Padding rows read
and write the null page and never affect a real row.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from threading import Lock

import torch

from flipfast.engine.attention.base import AttentionMetadata
from flipfast.engine.batch import StepBatch

Forward = Callable[[torch.Tensor, torch.Tensor, AttentionMetadata, torch.Tensor], torch.Tensor]
Recorder = Callable[[Callable[[], torch.Tensor]], Callable[[], torch.Tensor]]

_RECORDING = Lock()  # torch's allocator supports one capture at a time in a process
# Recorded before the first request, longer ones when first needed. Attention takes this many keys
# in one split; with room for more it runs another kernel, with more registers.
_FIRST_LENGTH = 1024


class DecodeGraphs:
    """Recorded decode steps with one token per sequence; the LM head is not recorded.

    Args:
        forward: (input_ids, positions, metadata, logit_rows) to the head's input in a tensor that
            the next call overwrites.
        max_seqs: maximum number of rows of a step.
        max_positions: maximum number of tokens of a sequence.
        page_size: tokens per page.
        device: of all tensors.
        record: returns a function that repeats a call's device work, such as `CudaRecorder`.
    """

    def __init__(
        self,
        forward: Forward,
        *,
        max_seqs: int,
        max_positions: int,
        page_size: int,
        device: torch.device,
        record: Recorder,
    ) -> None:
        self._forward = forward
        self._record = record
        self._sizes = ladder(max_seqs)
        self._lengths = lengths(max_positions)
        self._replays: dict[tuple[int, int], Callable[[], torch.Tensor]] = {}

        def ints(*shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self._input_ids, self._positions, self._slots = (ints(max_seqs) for _ in range(3))
        self._seq_lens = ints(max_seqs, dtype=torch.int32).fill_(1)
        self._tables = ints(max_seqs, -(-max_positions // page_size), dtype=torch.int32)
        self._rows = torch.arange(max_seqs, device=device)
        self._starts = torch.arange(max_seqs + 1, dtype=torch.int32, device=device)

    def warm_up(self) -> None:
        """Record every size, the largest first, so that the others reuse its memory."""
        for size in reversed(self._sizes):
            self._replay(size, self._lengths[0])

    def fits(self, batch: StepBatch) -> bool:
        """Whether a step runs one token for each of its sequences, all of them sampling."""
        return batch.metadata.max_seqlen_q == 1 and len(batch.logit_rows) == len(batch.input_ids)

    def run(self, batch: StepBatch) -> torch.Tensor:
        """The head's input (n, hidden_size) of a step that `fits`; the next call overwrites it."""
        n, meta = len(batch.input_ids), batch.metadata
        size = self._sizes[bisect_left(self._sizes, n)]
        width = meta.block_tables.shape[1]
        self._input_ids[:n].copy_(batch.input_ids)
        self._positions[:n].copy_(batch.positions)
        self._slots[:n].copy_(meta.slot_mapping)
        self._seq_lens[:n].copy_(meta.seq_lens)
        self._tables[:n, :width].copy_(meta.block_tables)
        for padded, value in (
            (self._input_ids, 0),
            (self._positions, 0),
            (self._slots, 0),
            (self._seq_lens, 1),
            (self._tables, 0),
        ):
            padded[n:size].fill_(value)
        length = self._lengths[bisect_left(self._lengths, meta.max_seq_len)]
        return self._replay(size, length)()[:n]

    def _replay(self, size: int, length: int) -> Callable[[], torch.Tensor]:
        if (size, length) not in self._replays:
            self._replays[size, length] = self._record(lambda: self._step(size, length))
        return self._replays[size, length]

    def _step(self, size: int, length: int) -> torch.Tensor:
        metadata = AttentionMetadata(
            cu_seqlens_q=self._starts[: size + 1],
            seq_lens=self._seq_lens[:size],
            block_tables=self._tables[:size],
            slot_mapping=self._slots[:size],
            max_seqlen_q=1,
            max_seq_len=length,
        )
        return self._forward(
            self._input_ids[:size], self._positions[:size], metadata, self._rows[:size]
        )


class CudaRecorder:
    """Records CUDA graphs that share one memory pool, in a stream of its own.

    A pool cannot be used again once its graphs are gone: later graphs take another recorder.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()

    def __call__(self, call: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        """Run the call twice unrecorded, as kernels may compile on first use, then record it."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            call()
            call()
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # In the usual mode, a data loader that pins memory in its thread fails the capture.
        mode = "thread_local"
        with _RECORDING, torch.cuda.graph(graph, self._pool, self._stream, mode):
            out = call()

        def replay() -> torch.Tensor:
            graph.replay()
            return out

        return replay


def ladder(max_seqs: int) -> list[int]:
    """Sizes to record: 1, 2, 4, multiples of 8, of 16 from 32, of 32 from 128, and max_seqs."""
    sizes = {1, 2, 4, *range(8, 32, 8), *range(32, 128, 16), *range(128, max_seqs, 32), max_seqs}
    return sorted(size for size in sizes if size <= max_seqs)


def lengths(max_positions: int) -> list[int]:
    """Sequence lengths to record for, each four times the previous one, up to max_positions."""
    found = []
    length = _FIRST_LENGTH
    while length < max_positions:
        found.append(length)
        length *= 4
    return [*found, max_positions]
