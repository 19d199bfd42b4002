"""The engine: takes sequences, returns output tokens or the probabilities of given tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf

from flipfast.engine.counters import EngineCounters
from flipfast.engine.drafting import Drafting
from flipfast.engine.fair_lock import FairLock
from flipfast.engine.model_runner import ModelRunner
from flipfast.engine.scheduler import Scheduler
from flipfast.engine.sequence import Sequence, lead_samples
from flipfast.engine.step_loop import StepLoop
from flipfast.errors import FlipfastError


class Engine:
    """Runs the sequences of any number of threads together, in the steps of one `StepLoop`.

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
        drafting: Drafting | None = None,
    ) -> None:
        self._loop = StepLoop(
            runner, scheduler, end_ids=end_ids, overlap=overlap, drafting=drafting
        )
        self._runner = runner
        self._scheduler = scheduler
        self._lock = FairLock()

    @property
    def end_ids(self) -> frozenset[int]:
        """Token ids that end an output."""
        return self._loop.end_ids

    @property
    def drafts(self) -> bool:
        """Whether the engine uses speculative decoding."""
        return self._loop.drafting is not None

    @property
    def max_seqs(self) -> int:
        """Maximum number of sequences running at a time."""
        return self._scheduler.max_seqs

    @property
    def counters(self) -> EngineCounters:
        """Totals so far."""
        return self._loop.counters

    def generate(
        self, sequences: SequenceOf[Sequence], on_finished: Callable[[Sequence], None] | None = None
    ) -> None:
        """Run sequences to their end; results are stored in each sequence's own fields.

        The same steps also run sequences of other threads. If this call is interrupted, its
        sequences leave the engine with finish_reason "cancelled".

        Args:
            sequences: new ones.
            on_finished: called by this thread with each sequence as it ends.
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
        """Queue sequences for `step` to run; each one's `on_end` is called when it has ended.

        Of sequences with the same prompt, the first computes it and the others reuse its pages.
        """
        lead_samples(sequences)
        with self._lock:
            self._runner.wait_for_caller()
        for sequence in sequences:
            if not self.add(sequence) and sequence.on_end is not None:
                sequence.on_end(sequence)

    def add(self, sequence: Sequence) -> bool:
        """Queue a sequence; False if it can never run and has therefore ended with an error."""
        with self._lock:
            reason = self._scheduler.refusal(sequence.n_most)
            if reason is not None:
                sequence.fail(reason)
                return False
            self._scheduler.add(sequence)
            return True

    def cancel(self, sequence: Sequence) -> None:
        """Drop a sequence that has not ended, and free its pages at once."""
        with self._lock:
            if sequence.finish_reason is None:
                sequence.finish_reason = "cancelled"
                self._loop.end(sequence)

    def cancel_all(self) -> None:
        """Drop every sequence that has not ended."""
        with self._lock:
            for sequence in [*self._scheduler.running, *self._scheduler.waiting]:
                self.cancel(sequence)
            self._loop.take_in()

    def step(self) -> list[Sequence]:
        """Start the next step, collect earlier results; returns the sequences that have ended."""
        with self._lock:
            return self._loop.step()

    def pin(self, token_ids: SequenceOf[int]) -> None:
        """Keep this prompt prefix in the prefix cache for longer than others."""
        with self._lock:
            self._scheduler.cache.pin(token_ids)

    def forget_prefixes(self) -> None:
        """Empty the prefix cache.

        Raises:
            FlipfastError: the engine has unfinished sequences.
        """
        with self._lock:
            self.require_idle("empty the prefix cache")
            self._scheduler.cache.clear()

    def require_idle(self, purpose: str) -> None:
        """Raise FlipfastError if the engine has unfinished sequences."""
        with self._lock:
            self._loop.take_in()
            if not self._scheduler.idle:
                running, waiting = len(self._scheduler.running), len(self._scheduler.waiting)
                raise FlipfastError(
                    f"cannot {purpose} with {running} requests running and {waiting} waiting: "
                    "wait for them, or cancel them"
                )
