"""CUDA graphs of steps, so that the host launches one graph instead of every kernel.

A step is padded to a shape that is recorded. Padding rows read and write the null page, or belong
to no sequence, and never affect a real row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch

from flipfast.engine.batch import HostBatch, StepBatch
from flipfast.engine.step_shapes import StepShape, StepShapes
from flipfast.engine.transfer import Layout, staging

Output = tuple[torch.Tensor, torch.Tensor]
Compute = Callable[[StepBatch], Output]
Recorder = Callable[[Callable[[], Output]], Callable[[], Output]]

_RECORDING = Lock()  # torch's allocator supports one capture at a time in a process
_NONE = np.empty(0, dtype=np.int64)


class _Recorded(NamedTuple):
    layout: Layout
    batch: StepBatch
    replay: Callable[[], Output]


class StepGraphs:
    """Recorded steps: their layers, the head's arg-max, and what becomes of the tokens.

    Args:
        compute: runs a batch and returns, in tensors that the next call overwrites, the head's
            input, (n_logits, hidden_size), and the likeliest tokens, (n_logits,) int64.
        shapes: that are recorded.
        page_size: tokens per page.
        output_rows: whether sequences may have an output_row.
        null_slot: takes what padding samples.
        device: of all tensors.
        record: returns a function that repeats a call's device work, such as `CudaRecorder`.
    """

    def __init__(
        self,
        compute: Compute,
        shapes: StepShapes,
        *,
        page_size: int,
        output_rows: bool,
        null_slot: int,
        device: torch.device,
        record: Recorder,
    ) -> None:
        self._compute = compute
        self._shapes = shapes
        self._layout = partial(StepShape.layout, page_size=page_size, output_rows=output_rows)
        self._null_slot = null_slot
        self._record = record
        self._recorded: dict[StepShape, _Recorded] = {}
        n_bytes = max(self._layout(shape).n_bytes for shape in shapes.largest())
        # The inputs of all recorded steps, which run one after the other.
        self._inputs = torch.zeros(n_bytes, dtype=torch.uint8, device=device)

    def warm_up(self) -> None:
        """Record what is needed first, the largest first, so that the others reuse its memory."""
        for shape in self._shapes.at_load():
            self._step(shape)

    def fits(self, batch: HostBatch) -> bool:
        """Whether `run` takes a step."""
        return self._shapes.fitting(batch) is not None

    def run(self, batch: HostBatch) -> tuple[StepBatch, Output]:
        """Run a step that `fits`.

        Returns:
            The padded batch on the device and its output, of which the first n_logits rows are the
            step's; the next call overwrites all of them.
        """
        shape = self._shapes.fitting(batch)
        assert shape is not None
        step = self._step(shape)
        self._put(shape, step.layout, batch)
        return step.batch, step.replay()

    def _step(self, shape: StepShape) -> _Recorded:
        """A recorded step; its inputs are overwritten if it is recorded just now."""
        if shape not in self._recorded:
            layout = self._layout(shape)
            batch = StepBatch.of(
                layout.on_device(self._inputs),
                n_logits=shape.n_logits,
                max_seqlen_q=shape.max_seqlen_q,
                max_seq_len=shape.max_seq_len,
            )
            self._put(shape, layout, _nothing())
            replay = self._record(lambda: self._compute(batch))
            self._recorded[shape] = _Recorded(layout, batch, replay)
        return self._recorded[shape]

    def _put(self, shape: StepShape, layout: Layout, batch: HostBatch) -> None:
        host = staging(layout.n_bytes, self._inputs.device)
        shape.fill(layout, host, batch, self._null_slot)
        self._inputs[: layout.n_bytes].copy_(host, non_blocking=True)


class CudaRecorder:
    """Records CUDA graphs that share one memory pool, in a stream of its own.

    A pool cannot be used again once its graphs are gone: later graphs take another recorder.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()

    def __call__(self, call: Callable[[], Output]) -> Callable[[], Output]:
        """Run the call once unrecorded, as kernels may compile on first use, then record it."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            call()
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # In the usual mode, a data loader that pins memory in its thread fails the capture.
        mode = "thread_local"
        with _RECORDING, torch.cuda.graph(graph, self._pool, self._stream, mode):
            out = call()

        def replay() -> Output:
            graph.replay()
            return out

        return replay


def _nothing() -> HostBatch:
    """A step without sequences, of which padding makes one that may run."""
    arrays = dict.fromkeys(("input_ids", "positions", "slot_mapping", "head_rows"), _NONE)
    arrays |= {"sample_slots": _NONE, "seq_lens": _NONE, "cu_seqlens_q": np.zeros(1, np.int32)}
    arrays["block_tables"] = np.empty((0, 0), dtype=np.int32)
    return HostBatch(arrays, n_logits=0, max_seqlen_q=0, max_seq_len=0, row_slots=_NONE)
