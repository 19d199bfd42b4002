"""The engine: sequences in, output tokens out, or the probabilities of given ones."""

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
        scheduler: plans them.
        end_ids: token ids that end an output.
        overlap: whether a step is planned while the one before it runs.
        drafting: proposes what may come next (speculative decoding); None for one token a pass.
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
        self._scheduler = scheduler
        self._lock = FairLock()

    @property
    def end_ids(self) -> frozenset[int]:
        """Token ids that end an output."""
        return self._loop.end_ids

    @property
    def drafts(self) -> bool:
        """Whether steps try tokens in advance."""
        return self._loop.drafting is not None

    @property
    def max_seqs(self) -> int:
        """Most sequences running at a time."""
        return self._scheduler.max_seqs

    @property
    def counters(self) -> EngineCounters:
        """Totals so far."""
        return self._loop.counters

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
                self._loop.end(sequence)

    def cancel_all(self) -> None:
        """Drop every sequence that has not ended."""
        with self._lock:
            for sequence in [*self._scheduler.running, *self._scheduler.waiting]:
                self.cancel(sequence)
            self._loop.take_in()

    def step(self) -> list[Sequence]:
        """Plan and start a step, take in what the one before brought; returns who has ended."""
        with self._lock:
            return self._loop.step()

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
            self._loop.take_in()
            if not self._scheduler.idle:
                running, waiting = len(self._scheduler.running), len(self._scheduler.waiting)
                raise FlipfastError(
                    f"cannot {purpose} with {running} requests running and {waiting} waiting: "
                    "wait for them, or cancel them"
                )
