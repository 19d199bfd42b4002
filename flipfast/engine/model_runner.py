"""Runs planned steps on the device and holds the state that lives there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from flipfast.engine.attention.base import AttentionBackend, AttentionMetadata, LayerCache
from flipfast.engine.batch import StepBatch, build_batch, to_device
from flipfast.engine.cuda_graphs import DecodeGraphs, Recorder
from flipfast.engine.keep import KeepTokens, keep_tokens
from flipfast.engine.sampler import penalize, prepare_draws, sample
from flipfast.engine.sequence import MAX_DRAFT
from flipfast.engine.step_plan import Chunk, StepPlan
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
        chosen = iter(self.tokens.tolist())
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
        recorder: makes what records decode steps, anew whenever memory is allocated; None runs
            them unrecorded; see `DecodeGraphs`.
    """

    def __init__(
        self,
        decoder: Decoder,
        ops: Ops,
        attention: AttentionBackend,
        *,
        n_pages: int,
        max_seqs: int,
        keep: KeepTokens = keep_tokens,
        repetition_penalty: float = 1.0,
        recorder: Callable[[], Recorder] | None = None,
    ) -> None:
        self.decoder = decoder
        self.device = ops.device
        self._ops = ops
        self._attention = attention
        self._n_pages = n_pages
        self._keep = keep
        self.keeps_rows = keep is not keep_tokens  # whether sequences may have an output_row
        self._penalty = repetition_penalty
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
        self._last_token = torch.zeros(self._max_seqs, dtype=torch.int64, device=self.device)
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
        row = torch.empty(1 + MAX_DRAFT, dtype=torch.int32, device=self.device)
        plans = warm_up_plans(
            max_seqs=self._max_seqs,
            max_tokens=max_tokens,
            max_positions=self.decoder.spec.max_positions,
            page_size=self._attention.page_size,
            drafts=self._penalty == 1.0,
            output_row=row if self.keeps_rows else None,
        )
        for plan in plans:
            self.run(plan).wait()

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
        self._copy_pages(plan.copies)
        batch = build_batch(plan, self._attention.page_size, self.device)
        batch.input_ids[batch.fed_rows] = self._last_token[batch.fed_slots]
        if self._graphs is not None and self._graphs.fits(batch):
            hidden = self._graphs.run(batch)
        else:
            hidden = self._forward(
                batch.input_ids, batch.positions, batch.metadata, batch.head_rows
            )
        chunks = [chunk for chunk in plan.chunks if chunk.samples]
        if self._penalty != 1.0:
            self._note_seen(plan, batch)
        n_logits = len(batch.logit_rows)
        tokens = self._choose(hidden[:n_logits], chunks, batch)
        if chunks:
            self._keep(tokens, batch, self._last_token)
        scores = self._score(hidden[n_logits:], batch)
        scored = [chunk for chunk in plan.chunks if chunk.n_scored]
        tokens, scores, arrived = self._send(tokens, scores)
        return StepResult(chunks, tokens, arrived, scored, scores)

    def _hold_output_rows(self, plan: StepPlan) -> None:
        """Keep a freed row from being used again before the steps that write to it have ended."""
        for sequence in plan.admitted:
            if sequence.output_row is not None and self._stream is not None:
                sequence.output_row.record_stream(self._stream)

    def _copy_pages(self, copies: list[tuple[int, int]]) -> None:
        if copies:
            pairs = to_device(torch.tensor(copies).T.contiguous(), self.device)
            for cache in self._caches:
                self._attention.copy_pages(cache, pairs[0], pairs[1])

    def _choose(self, hidden: torch.Tensor, chunks: list[Chunk], batch: StepBatch) -> torch.Tensor:
        """The token after each logit row, (n,) int64; BAD_LOGITS if its logits are not usable."""
        draws = prepare_draws(chunks, self.device)
        if draws is None and self._penalty == 1.0:
            return self.decoder.best(hidden)
        tokens = []
        most = self.decoder.max_logit_rows
        for start in range(0, len(hidden), most):
            logits = self.decoder.logits(hidden[start : start + most])
            if self._penalty != 1.0:  # then there are no drafts, and one row per slot
                slots = batch.sample_slots[start : start + most]
                penalize(logits, self._seen[slots], self._penalty)
            within = None if draws is None else draws.within(start, start + most)
            tokens.append(sample(logits, self._ops.argmax(logits), within))
        return torch.cat(tokens)

    def _score(self, hidden: torch.Tensor, batch: StepBatch) -> torch.Tensor | None:
        """`StepResult.scores`, on the device."""
        if batch.targets is None:
            return None
        log_probs, best = self.decoder.score(hidden, batch.targets)
        return torch.stack([log_probs.double(), best.double()])

    def _forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        metadata: AttentionMetadata,
        logit_rows: torch.Tensor,
    ) -> torch.Tensor:
        return self.decoder.forward(input_ids, positions, self._caches, metadata, logit_rows)

    @torch.inference_mode()
    def _recorded_steps(self) -> DecodeGraphs:
        assert self._recorder is not None
        graphs = DecodeGraphs(
            self._forward,
            max_seqs=self._max_seqs,
            max_positions=self.decoder.spec.max_positions,
            page_size=self._attention.page_size,
            device=self.device,
            record=self._recorder(),
        )
        graphs.warm_up()
        return graphs

    def _note_seen(self, plan: StepPlan, batch: StepBatch) -> None:
        """Mark the known tokens of an admitted sequence, then each token as it is fed back."""
        for sequence in plan.admitted:
            known = torch.tensor(sequence.known_tokens(0, sequence.n_tokens))
            self._seen[sequence.slot] = False
            self._seen[sequence.slot, to_device(known, self.device)] = True
        slots = torch.tensor([chunk.sequence.slot for chunk in plan.chunks])
        n_rows = torch.tensor([chunk.n for chunk in plan.chunks])
        rows = to_device(slots.repeat_interleave(n_rows), self.device)
        self._seen[rows, batch.input_ids] = True

    def _send(
        self, tokens: torch.Tensor, scores: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.cuda.Event | None]:
        """Host copies, and the event that marks their arrival."""
        if self.device.type == "cpu":
            return tokens, scores, None
        tokens, scores = _to_host(tokens), None if scores is None else _to_host(scores)
        arrived = torch.cuda.Event()
        arrived.record()
        return tokens, scores, arrived


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def _verified(chunk: Chunk, chosen: list[int]) -> list[int]:
    """The chosen tokens up to the first one that differs from the draft, inclusive."""
    for at, token in enumerate(chunk.draft):
        if chosen[at] != token:
            return chosen[: at + 1]
    return chosen
