"""The step loop: plans and runs steps, distributes their results, handles steps that fail."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

import torch

from flipfast.engine.counters import EngineCounters
from flipfast.engine.drafting import Drafting
from flipfast.engine.model_runner import ModelRunner, StepResult
from flipfast.engine.sampler import BAD_LOGITS
from flipfast.engine.scheduler import Scheduler
from flipfast.engine.sequence import Sequence
from flipfast.engine.step_plan import Chunk, StepPlan
from flipfast.errors import FlipfastError

_SMALLEST_CHUNK = 32  # tokens; a lone chunk of at most this size that fails is not retried


@dataclass(frozen=True)
class _Step:
    plan: StepPlan
    result: StepResult
    began: float


class StepLoop:
    """Continuous batching: every step runs as much of the current sequences as fits.

    On an asynchronous device, a step is planned while the previous one runs. A sequence may then
    take part in one extra step before its end token reaches the host; what that step samples is
    discarded. Where drafts are worth it, a step waits for the previous one instead.

    Not thread-safe: `Engine` holds a lock around each call.

    Args:
        runner: runs steps.
        scheduler: plans steps.
        end_ids: token ids that end an output.
        overlap: whether to plan a step while the previous one runs.
        drafting: proposes draft tokens (speculative decoding); None for one token per pass.
    """

    def __init__(
        self,
        runner: ModelRunner,
        scheduler: Scheduler,
        *,
        end_ids: frozenset[int],
        overlap: bool,
        drafting: Drafting | None,
    ) -> None:
        self.scheduler = scheduler
        self.end_ids = end_ids
        self.drafting = drafting
        self._runner = runner
        self._under_way: deque[_Step] = deque()
        self._arrived = 0.0  # when the last step's tokens arrived
        self._ahead = 1 if overlap else 0  # steps that may be in flight while one is planned
        self._steps = self._computed = self._outputs = self._failed_steps = 0
        self._passes = self._scored = self._drafted = self._accepted = 0

    @property
    def counters(self) -> EngineCounters:
        """Totals so far."""
        cache, totals = self.scheduler.cache, self.scheduler.counters
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

    def step(self) -> list[Sequence]:
        """Start the next step, collect earlier results; returns the sequences that have ended.

        Raises:
            FlipfastError: sequences wait or run, but no step can be planned for them.
        """
        ended: list[Sequence] = []
        began = time.perf_counter()
        if self.drafting is not None and self.drafting.wanted(self.scheduler.running):
            ended += self.take_in()  # a draft continues tokens that the host must know
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
            if failure:  # outside the except block, the traceback and the step's memory are freed
                ended += self._take_back(plan)
                ended += self._retreat(plan, failure, out_of_memory=out_of_memory)
        elif not self._under_way and not self.scheduler.idle:
            raise FlipfastError("the engine has work but can plan none of it: please report")
        return ended + self.take_in(but=self._ahead if plan.chunks and not plan.drafted else 0)

    def take_in(self, but: int = 0) -> list[Sequence]:
        """Wait for all steps in flight but the last `but`; returns the sequences that ended."""
        ended = []
        while len(self._under_way) > but:
            tokens = self._under_way[0].result.wait()  # an interrupt here loses nothing
            step = self._under_way.popleft()
            self._note_cost(step)
            ended += self._hand_out(step.result, tokens)
        return ended

    def end(self, sequence: Sequence) -> None:
        """Remove a sequence that has its finish_reason, and call its `on_end`."""
        self.scheduler.remove(sequence)
        if self.drafting is not None:
            self.drafting.forget(sequence)
        if sequence.on_end is not None:
            sequence.on_end(sequence)

    def _plan(self) -> StepPlan:
        plan = self.scheduler.plan()
        if self.drafting is not None and not self._under_way:
            self.drafting.extend(plan, self.scheduler)
        return plan

    def _start(self, plan: StepPlan, began: float) -> _Step:
        result = self._runner.run(plan)
        self._steps += 1
        self._computed += plan.n_rows
        if plan.drafted:
            self._drafted += sum(len(chunk.draft) for chunk in plan.chunks)
        return _Step(plan, result, began)

    def _note_cost(self, step: _Step) -> None:
        """Report a step's duration, from the end of the previous one if they overlap."""
        now = time.perf_counter()
        if self.drafting is not None:
            self.drafting.took(step.plan, now - max(step.began, self._arrived))
        self._arrived = now

    def _hand_out(self, result: StepResult, tokens: list[list[int]]) -> list[Sequence]:
        """Pass a step's results to their sequences; returns those that have ended."""
        heard = []
        for chunk, emitted in zip(result.chunks, tokens, strict=True):
            sequence = chunk.sequence
            if sequence.finish_reason is None and sequence.epoch == chunk.epoch:
                heard.append((sequence, self._accept(chunk, emitted)))
        if self.drafting is not None:
            self.drafting.learn(heard)
        ended = [sequence for sequence, _ in heard if sequence.finish_reason is not None]
        ended += self._take_scores(result)
        for sequence in ended:
            self.end(sequence)
        return ended

    def _take_scores(self, result: StepResult) -> list[Sequence]:
        """Pass a step's scores to their sequences; returns those that have ended."""
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
        """Pass emitted tokens to a chunk's sequence; returns the tokens that it has taken."""
        sequence, epoch, before = chunk.sequence, chunk.epoch, len(chunk.sequence.output_ids)
        self._passes += 1
        self._accepted += len(emitted) - 1
        for token in emitted:
            self._outputs += 1
            if token == BAD_LOGITS:
                sequence.fail_on_logits(f"output token {len(sequence.output_ids)}")
            else:
                sequence.accept(token, self.end_ids)
            if sequence.finish_reason is not None or sequence.epoch != epoch:
                break
        if chunk.draft:
            self.scheduler.settle(sequence)
        heard = sequence.output_ids[before:]
        ended = sequence.finish_reason == "stop" and token in self.end_ids
        return [*heard, token] if ended else heard

    def _take_back(self, plan: StepPlan) -> list[Sequence]:
        """Undo a plan that did not run, after collecting earlier steps; returns who has ended."""
        ended = self.take_in()
        plan.chunks[:] = [c for c in plan.chunks if c.sequence.finish_reason is None]
        self.scheduler.roll_back(plan)
        return ended

    def _retreat(self, plan: StepPlan, reason: str, *, out_of_memory: bool) -> list[Sequence]:
        """After a failed step: make steps smaller, or fail the one sequence that is left."""
        self._failed_steps += 1
        if out_of_memory and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        if len(plan.chunks) != 1 or plan.chunks[0].n > _SMALLEST_CHUNK or plan.drafted:
            self.scheduler.shrink(plan)
            return []
        guilty = plan.chunks[0].sequence
        guilty.fail(reason)
        self.end(guilty)
        if not out_of_memory:  # the other sequences are most likely fine
            self.scheduler.restore_limits()
        return [guilty]


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _is_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError))
