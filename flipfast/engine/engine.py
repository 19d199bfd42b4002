"""The engine: sequences in, output tokens out, or the probabilities of given ones."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import torch

from flipfast.engine.counters import EngineCounters
from flipfast.engine.drafting import Drafting
from flipfast.engine.fair_lock import FairLock
from flipfast.engine.model_runner import ModelRunner, StepResult
from flipfast.engine.sampler import BAD_LOGITS
from flipfast.engine.scheduler import Chunk, Scheduler, StepPlan
from flipfast.engine.sequence import Sequence, lead_samples
from flipfast.errors import FlipfastError

_SMALLEST_CHUNK = 32  # tokens of a lone prompt whose step fails for good


@dataclass(frozen=True)
class _Step:
    plan: StepPlan
    result: StepResult
    began: float


class Engine:
    """Continuous batching: every step runs whatever fits of all sequences at hand.

    On a device that works by itself a step is planned while the one before it runs, so that a
    sequence may be in one step more than it needs when its end token arrives; what that step
    samples is dropped. Where drafts are worth it, a step waits for the one before it instead.

    Args:
        runner: runs steps.
        scheduler: plans them.
        end_ids: token ids that end an output.
        overlap: whether a step is planned while the one before it runs.
        drafting: proposes what may come next; None for one token a pass.
    """

    def __init__(
        self,
        runner: ModelRunner,
        scheduler: Scheduler,
        *,
        end_ids: frozenset[int],
        overlap: bool,
        drafting: Drafting | None = None,
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._end_ids = end_ids
        self._drafting = drafting
        self._under_way: deque[_Step] = deque()
        self._arrived = 0.0  # when the last step's tokens did
        self._ahead = 1 if overlap else 0  # steps that may be under way while one is planned
        self._lock = FairLock()
        self._steps = self._computed = self._outputs = self._failed_steps = 0
        self._passes = self._scored = self._drafted = self._accepted = 0

    @property
    def end_ids(self) -> frozenset[int]:
        """Token ids that end an output."""
        return self._end_ids

    @property
    def drafts(self) -> bool:
        """Whether steps try tokens in advance."""
        return self._drafting is not None

    @property
    def max_seqs(self) -> int:
        """Most sequences running at a time."""
        return self._scheduler.max_seqs

    @property
    def counters(self) -> EngineCounters:
        """Totals so far."""
        cache, totals = self._scheduler.cache, self._scheduler.counters
        return EngineCounters(
            steps=self._steps,
            sampling_passes=self._passes,
            prompt_tokens=totals.prompt_tokens,
            prefix_tokens=totals.prefix_tokens,
            copied_pages=totals.copied_pages,
            computed_tokens=self._computed,
            output_tokens=self._outputs,
            scored_tokens=self._scored,
            drafted_tokens=self._drafted,
            accepted_tokens=self._accepted,
            preemptions=totals.preemptions,
            evictions=cache.n_evicted,
            failed_steps=self._failed_steps,
            peak_pages=cache.pool.peak_held,
            pages=cache.pool.capacity,
        )

    def generate(
        self, sequences: SequenceOf[Sequence], on_finished: Callable[[Sequence], None] | None = None
    ) -> None:
        """Run sequences to their end; what came of them is in each one's own fields.

        Sequences of other threads run along in the same steps. If this is interrupted, its
        sequences leave the engine, with finish_reason "cancelled".

        Args:
            sequences: new ones.
            on_finished: called with each as it ends, by this thread.
        """
        ended: deque[Sequence] = deque()
        n_open = len(sequences)
        for sequence in sequences:
            sequence.on_end = ended.append
        try:
            self.start(sequences)
            while n_open:
                if not ended:
                    self.step()
                while ended:
                    sequence = ended.popleft()
                    n_open -= 1
                    if on_finished is not None:
                        on_finished(sequence)
        except BaseException:
            for sequence in sequences:
                self.cancel(sequence)
            raise

    def start(self, sequences: SequenceOf[Sequence]) -> None:
        """Queue sequences, to be run by `step`; their `on_end` tells when they have ended.

        Of those with the same prompt the first runs it, and the others go on from its pages.
        """
        lead_samples(sequences)
        for sequence in sequences:
            if not self.add(sequence) and sequence.on_end is not None:
                sequence.on_end(sequence)

    def add(self, sequence: Sequence) -> bool:
        """Queue a sequence; False if it can never run, and has ended with an error."""
        with self._lock:
            reason = self._scheduler.refusal(sequence.n_most)
            if reason is not None:
                sequence.fail(reason)
                return False
            self._scheduler.add(sequence)
            return True

    def cancel(self, sequence: Sequence) -> None:
        """Drop a sequence that has not ended; its pages are free at once."""
        with self._lock:
            if sequence.finish_reason is None:
                sequence.finish_reason = "cancelled"
                self._end(sequence)

    def cancel_all(self) -> None:
        """Drop every sequence that has not ended."""
        with self._lock:
            for sequence in [*self._scheduler.running, *self._scheduler.waiting]:
                self.cancel(sequence)
            self._take_in()

    def step(self) -> list[Sequence]:
        """Plan and start a step, take in what the one before brought; returns who has ended."""
        with self._lock:
            ended: list[Sequence] = []
            began = time.perf_counter()
            if self._drafting is not None and self._drafting.wanted(self._scheduler.running):
                ended += self._take_in()  # what a draft goes on from must be known here
            plan = self._plan()
            if plan.chunks:
                failure = ""
                try:
                    self._under_way.append(self._start(plan, began))
                except Exception as error:
                    failure, out_of_memory = _reason(error), _is_memory(error)
                except BaseException:  # an interrupt
                    self._take_back(plan)
                    raise
                if failure:  # out here the traceback and the step's memory are gone
                    ended += self._take_back(plan)
                    ended += self._retreat(plan, failure, out_of_memory=out_of_memory)
            elif not self._under_way and not self._scheduler.idle:
                raise FlipfastError("the engine has work but can plan none of it: please report")
            return ended + self._take_in(but=self._ahead if plan.chunks and not plan.drafted else 0)

    def pin(self, token_ids: SequenceOf[int]) -> None:
        """Keep this start of prompts in the prefix cache for longer than others."""
        with self._lock:
            self._scheduler.cache.pin(token_ids)

    def forget_prefixes(self) -> None:
        """Empty the prefix cache.

        Raises:
            FlipfastError: sequences are in the engine.
        """
        with self._lock:
            self.require_idle("change the weights")
            self._scheduler.cache.clear()

    def require_idle(self, purpose: str) -> None:
        """Raise FlipfastError while sequences are in the engine."""
        with self._lock:
            self._take_in()
            if not self._scheduler.idle:
                running, waiting = len(self._scheduler.running), len(self._scheduler.waiting)
                raise FlipfastError(
                    f"cannot {purpose} with {running} requests running and {waiting} waiting: "
                    "wait for them, or cancel them"
                )

    def _plan(self) -> StepPlan:
        plan = self._scheduler.plan()
        if self._drafting is not None and not self._under_way:
            self._drafting.extend(plan, self._scheduler)
        return plan

    def _start(self, plan: StepPlan, began: float) -> _Step:
        result = self._runner.run(plan)
        self._steps += 1
        self._computed += plan.n_rows
        self._drafted += sum(len(chunk.draft) for chunk in plan.chunks)
        return _Step(plan, result, began)

    def _take_in(self, but: int = 0) -> list[Sequence]:
        """Wait for all steps under way but so many; returns the sequences that have ended."""
        ended = []
        while len(self._under_way) > but:
            tokens = self._under_way[0].result.wait()  # an interrupt here loses nothing
            step = self._under_way.popleft()
            self._note_cost(step)
            ended += self._hand_out(step.result, tokens)
        return ended

    def _note_cost(self, step: _Step) -> None:
        """Tell the drafts how long a step took; of overlapping ones, behind the one before."""
        now = time.perf_counter()
        if self._drafting is not None:
            self._drafting.took(step.plan, now - max(step.began, self._arrived))
        self._arrived = now

    def _hand_out(self, result: StepResult, tokens: list[list[int]]) -> list[Sequence]:
        """Give a step's results to their sequences; returns those that have ended."""
        heard = []
        for chunk, emitted in zip(result.chunks, tokens, strict=True):
            sequence = chunk.sequence
            if sequence.finish_reason is None and sequence.epoch == chunk.epoch:
                heard.append((sequence, self._accept(chunk, emitted)))
        if self._drafting is not None:
            self._drafting.learn(heard)
        ended = [sequence for sequence, _ in heard if sequence.finish_reason is not None]
        ended += self._take_scores(result)
        for sequence in ended:
            self._end(sequence)
        return ended

    def _take_scores(self, result: StepResult) -> list[Sequence]:
        """Give a step's scores to their sequences; returns those that have all of theirs."""
        ended: list[Sequence] = []
        for chunk, log_probs, best_ids in result.wait_for_scores():
            sequence = chunk.sequence
            if sequence.finish_reason is None:
                self._scored += len(log_probs)
                sequence.take_scores(chunk.start + chunk.n - chunk.n_scored, log_probs, best_ids)
                if sequence.finish_reason is not None:
                    ended.append(sequence)
        return ended

    def _accept(self, chunk: Chunk, emitted: list[int]) -> list[int]:
        """Give a sequence what a pass brought; returns the tokens that it has taken."""
        sequence, epoch, before = chunk.sequence, chunk.epoch, len(chunk.sequence.output_ids)
        self._passes += 1
        self._accepted += len(emitted) - 1
        for token in emitted:
            self._outputs += 1
            if token == BAD_LOGITS:
                sequence.fail_on_logits(f"output token {len(sequence.output_ids)}")
            else:
                sequence.accept(token, self._end_ids)
            if sequence.finish_reason is not None or sequence.epoch != epoch:
                break
        if chunk.draft:
            self._scheduler.settle(sequence)
        heard = sequence.output_ids[before:]
        ended = sequence.finish_reason == "stop" and token in self._end_ids
        return [*heard, token] if ended else heard

    def _take_back(self, plan: StepPlan) -> list[Sequence]:
        """Undo a plan that did not run, once the step before it is in; returns who has ended."""
        ended = self._take_in()
        plan.chunks[:] = [c for c in plan.chunks if c.sequence.finish_reason is None]
        self._scheduler.roll_back(plan)
        return ended

    def _retreat(self, plan: StepPlan, reason: str, *, out_of_memory: bool) -> list[Sequence]:
        """After a step that failed: try less at a time, or give up the one that is left."""
        self._failed_steps += 1
        if out_of_memory and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        if len(plan.chunks) != 1 or plan.chunks[0].n > _SMALLEST_CHUNK or plan.drafted:
            self._scheduler.shrink(plan)
            return []
        guilty = plan.chunks[0].sequence
        guilty.fail(reason)
        self._end(guilty)
        if not out_of_memory:  # the others are most likely well
            self._scheduler.restore_limits()
        return [guilty]

    def _end(self, sequence: Sequence) -> None:
        self._scheduler.remove(sequence)
        if self._drafting is not None:
            self._drafting.forget(sequence)
        if sequence.on_end is not None:
            sequence.on_end(sequence)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _is_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError))
