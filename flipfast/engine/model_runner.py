"""Runs planned steps on the device and holds the state that lives there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from flipfast.engine.attention.base import AttentionBackend, LayerCache
from flipfast.engine.batch import BatchBuilder, HostBatch, StepBatch
from flipfast.engine.cuda_graphs import Recorder, StepGraphs
from flipfast.engine.keep import Keep
from flipfast.engine.sampler import Draws, draw_arrays, draws_of, penalize, sample
from flipfast.engine.step_plan import Chunk, StepPlan
from flipfast.engine.step_shapes import StepShapes
from flipfast.engine.transfer import Array, send, to_host
from flipfast.engine.warm_up import warm_up_plans

if TYPE_CHECKING:
    from flipfast.engine.models.decoder import Decoder
    from flipfast.engine.ops.base import Ops


@dataclass(frozen=True)
class StepResult:
    """A step's results, on their way to the host.

    Attributes:
        chunks: those that sample.
        tokens: (n,) int64 on the host, valid once `arrived` has happened: the token chosen after
            the last known token of each chunk and after each token of its draft.
        arrived: event recorded after the copies; None if the device is the host.
        scored: chunks with rows that were scored.
        scores: (2, n) float64 on the host, valid once `arrived` has happened: the log-probability
            of each row's target, and the likeliest token, both exact in float64; None if no rows
            were scored.
    """

    chunks: list[Chunk]
    tokens: torch.Tensor
    arrived: torch.cuda.Event | None
    scored: list[Chunk] = field(default_factory=list)
    scores: torch.Tensor | None = None

    def wait(self) -> list[list[int]]:
        """Each chunk's output tokens: the accepted draft tokens and one more.

        The last one is BAD_LOGITS if its logits were not finite.
        """
        if self.arrived is not None:
            self.arrived.synchronize()
        tokens = self.tokens.tolist()
        if len(tokens) == len(self.chunks):  # no drafts
            return [[token] for token in tokens]
        chosen = iter(tokens)
        return [
            _verified(chunk, [next(chosen) for _ in range(1 + len(chunk.draft))])
            for chunk in self.chunks
        ]

    def wait_for_scores(self) -> list[tuple[Chunk, list[float], list[int]]]:
        """Each scored chunk with its targets' log-probabilities and its likeliest tokens."""
        if self.scores is None:
            return []
        if self.arrived is not None:
            self.arrived.synchronize()
        parts = self.scores.split([chunk.n_scored for chunk in self.scored], dim=1)
        return [
            (chunk, part[0].tolist(), part[1].long().tolist())
            for chunk, part in zip(self.scored, parts, strict=True)
        ]


class ModelRunner:
    """A decoder with its KV cache pages and, for every slot, the token sampled last.

    A sampled token stays on the device for the next step; the host receives a copy asynchronously,
    to detect end tokens and collect the result, and plans the next step meanwhile.

    On a CUDA device, steps run in a stream of their own, so that they are in order whichever thread
    starts them and in whichever stream that works. They read what callers have written only after
    `wait_for_caller`; callers read what steps have written once the host has seen `arrived`.

    Args:
        decoder: with its weights loaded.
        ops: of the decoder's device.
        attention: owns the pages' layout.
        n_pages: pages per layer.
        max_seqs: number of slots.
        keep: stores a step's tokens where the next step and the reward read them.
        repetition_penalty: 1.0 for none; see `sampler.penalize`.
        drafts: whether steps may have drafts.
        recorder: makes what records steps, anew whenever memory is allocated; None runs them
            unrecorded; see `StepGraphs`.
    """

    def __init__(
        self,
        decoder: Decoder,
        ops: Ops,
        attention: AttentionBackend,
        *,
        n_pages: int,
        max_seqs: int,
        keep: Keep | None = None,
        repetition_penalty: float = 1.0,
        drafts: bool = True,
        recorder: Callable[[], Recorder] | None = None,
    ) -> None:
        self.decoder = decoder
        self.device = ops.device
        self._ops = ops
        self._attention = attention
        self._n_pages = n_pages
        self._keep = keep or Keep()
        self.keeps_rows = self._keep.writes_rows  # whether sequences may have an output_row
        self._penalty = repetition_penalty
        self._drafts = drafts
        self._max_seqs = max_seqs
        self._recorder = recorder
        self._caches: list[LayerCache] = []
        on_cuda = self.device.type == "cuda"
        self._stream = torch.cuda.Stream(self.device) if on_cuda else None
        self.allocate()

    def wait_for_caller(self) -> None:
        """Let later steps begin after the work that this thread has begun on the device."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self.device))

    def allocate(self) -> None:
        """Allocate the pages and the slots' state."""
        self.wait_for_caller()
        with self._in_stream():
            self._allocate()

    def _allocate(self) -> None:
        n_layers = len(self.decoder.spec.layers)
        self._caches = [self._attention.allocate(self._n_pages) for _ in range(n_layers)]
        # Padding of recorded steps has the last place.
        self._last_token = torch.zeros(self._max_seqs + 1, dtype=torch.int64, device=self.device)
        self._batches = BatchBuilder(
            self._attention.page_size, self._max_seqs, output_rows=self.keeps_rows
        )
        rows = self._max_seqs if self._penalty != 1.0 else 0
        shape = (rows, self.decoder.spec.vocab_size)
        self._seen = torch.zeros(shape, dtype=torch.bool, device=self.device)
        self._graphs = self._recorded_steps() if self._recorder is not None else None

    def release(self) -> None:
        """Free the memory of the pages and the slots' state; `allocate` makes new ones."""
        self._caches, self._graphs = [], None
        self._seen = self._last_token = torch.empty(0)

    def warm_up(self, max_tokens: int) -> None:
        """Let every kernel that steps of up to max_tokens launch be compiled now."""
        plans = warm_up_plans(
            max_seqs=self._max_seqs,
            max_tokens=max_tokens,
            max_positions=self.decoder.spec.max_positions,
            page_size=self._attention.page_size,
            drafts=self._drafts,
        )
        # Recording has compiled what recorded steps launch.
        graphs, self._graphs = self._graphs, None
        try:
            for plan in plans:
                self.run(plan).wait()
        finally:
            self._graphs = graphs

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> StepResult:
        """Start a step; on a CUDA device it may still be running when this returns.

        Args:
            plan: at least one chunk; tokens that earlier steps sampled for its sequences are read
                on the device.
        """
        with self._in_stream():
            return self._run(plan)

    def _in_stream(self) -> AbstractContextManager[object]:
        """Make the stream the thread's current one, and its device the one of kernel launches."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def _run(self, plan: StepPlan) -> StepResult:
        self._hold_output_rows(plan)
        step = self._batches.build(plan)
        chunks = [chunk for chunk in plan.chunks if chunk.samples]
        arrays = draw_arrays(chunks) | self._other_arrays(plan, step)
        others = send(arrays, self.device)
        self._copy_pages(others)
        draws = draws_of(arrays, others)
        greedy = draws is None and self._penalty == 1.0
        if self._graphs is not None and self._graphs.fits(step):
            batch, (hidden, tokens) = self._graphs.run(step)
        else:
            batch = step.to(self.device)
            hidden, tokens = self._compute(batch, greedy=greedy)
        if self._penalty != 1.0:
            self._note_seen(batch.input_ids[: step.n_tokens], others)
        self._choose(hidden[: step.n_logits], tokens, draws, batch)
        scores = self._score(hidden[step.n_logits :], batch)
        scored = [] if scores is None else [chunk for chunk in plan.chunks if chunk.n_scored]
        tokens, scores, arrived = self._send(tokens[: step.n_logits], scores)
        return StepResult(chunks, tokens, arrived, scored, scores)

    def _compute(
        self, batch: StepBatch, *, greedy: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the layers, and choose and keep the likeliest tokens unless others are wanted.

        Returns:
            The head's input, (n_logits + n_scored, hidden_size), and the tokens after the logit
            rows, (n_logits,) int64.
        """
        self._keep.feed(batch, self._last_token)
        hidden = self.decoder.forward(
            batch.input_ids, batch.positions, self._caches, batch.metadata, batch.head_rows
        )
        if not greedy:
            return hidden, torch.empty(batch.n_logits, dtype=torch.int64, device=self.device)
        tokens = self.decoder.best(hidden[: batch.n_logits])
        if batch.n_logits:
            self._keep.keep(tokens, batch, self._last_token)
        return hidden, tokens

    def _other_arrays(self, plan: StepPlan, step: HostBatch) -> dict[str, Array]:
        """What only some steps need: pages to copy, and tokens for the repetition penalty."""
        arrays: dict[str, Array] = {}
        if plan.copies:
            arrays["copies"] = np.array(plan.copies).T.copy()
        if self._penalty != 1.0:
            arrays["row_slots"] = step.row_slots
            known = [sequence.known_ids(0, sequence.n_tokens) for sequence in plan.admitted]
            slots = np.array([sequence.slot for sequence in plan.admitted], dtype=np.int64)
            if plan.admitted:
                arrays["new_slots"] = slots
                arrays["known_slots"] = np.repeat(slots, [len(ids) for ids in known])
                arrays["known_ids"] = np.concatenate(known).astype(np.int64)
        return arrays

    def _hold_output_rows(self, plan: StepPlan) -> None:
        """Keep a freed row from being used again before the steps that write to it have ended."""
        for sequence in plan.admitted:
            if sequence.output_row is not None and self._stream is not None:
                sequence.output_row.record_stream(self._stream)

    def _copy_pages(self, arrays: Mapping[str, torch.Tensor]) -> None:
        if "copies" in arrays:
            sources, targets = arrays["copies"]
            for cache in self._caches:
                self._attention.copy_pages(cache, sources, targets)

    def _choose(
        self, hidden: torch.Tensor, tokens: torch.Tensor, draws: Draws | None, batch: StepBatch
    ) -> None:
        """Put in place of the likeliest tokens those that are drawn or penalized, and keep them.

        A token is BAD_LOGITS if its logits are not usable.

        Args:
            hidden: (n, hidden_size), the head's input for the tokens to choose.
            tokens: (at least n,) int64; the first n are overwritten.
            draws: of these; None if all are greedy.
            batch: padded like tokens.
        """
        if draws is None and self._penalty == 1.0:
            return
        most = self.decoder.max_logit_rows
        for start in range(0, len(hidden), most):
            logits = self.decoder.logits(hidden[start : start + most])
            end = start + len(logits)
            if self._penalty != 1.0:  # then there are no drafts, and one row per slot
                penalize(logits, self._seen[batch.sample_slots[start:end]], self._penalty)
            within = None if draws is None else draws.within(start, end)
            tokens[start:end] = sample(logits, self._ops.argmax(logits), within)
        self._keep.keep(tokens, batch, self._last_token)

    def _score(self, hidden: torch.Tensor, batch: StepBatch) -> torch.Tensor | None:
        """`StepResult.scores`, on the device."""
        if batch.targets is None:
            return None
        log_probs, best = self.decoder.score(hidden, batch.targets)
        return torch.stack([log_probs.double(), best.double()])

    @torch.inference_mode()
    def _recorded_steps(self) -> StepGraphs:
        assert self._recorder is not None
        shapes = StepShapes(
            max_seqs=self._max_seqs,
            max_tokens=self.decoder.max_tokens,
            max_positions=self.decoder.spec.max_positions,
            drafts=self._drafts,
        )
        graphs = StepGraphs(
            self._compute,
            shapes,
            page_size=self._attention.page_size,
            output_rows=self.keeps_rows,
            null_slot=self._max_seqs,
            device=self.device,
            record=self._recorder(),
        )
        graphs.warm_up()
        return graphs

    def _note_seen(self, input_ids: torch.Tensor, arrays: Mapping[str, torch.Tensor]) -> None:
        """Mark the known tokens of admitted sequences, then each token as it is fed back."""
        if "new_slots" in arrays:
            self._seen[arrays["new_slots"]] = False
            self._seen[arrays["known_slots"], arrays["known_ids"]] = True
        self._seen[arrays["row_slots"], input_ids] = True

    def _send(
        self, tokens: torch.Tensor, scores: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.cuda.Event | None]:
        """Host copies, made in one transfer, and the event that marks their arrival."""
        if self.device.type == "cpu":
            return tokens, scores, None
        n = len(tokens)
        if scores is not None:
            tokens = torch.cat([tokens, scores.view(torch.int64).flatten()])
        host = to_host(tokens)
        arrived = torch.cuda.Event()
        arrived.record()
        if scores is not None:
            scores = host[n:].view(torch.float64).view(2, -1)
        return host[:n], scores, arrived


def _verified(chunk: Chunk, chosen: list[int]) -> list[int]:
    """The chosen tokens up to the first one that differs from the draft, inclusive."""
    for at, token in enumerate(chunk.draft):
        if chosen[at] != token:
            return chosen[: at + 1]
    return chosen
