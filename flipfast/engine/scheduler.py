"""Decides which tokens of which sequences run in the next step."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

from flipfast.engine.prefix_cache import PrefixCache
from flipfast.engine.sequence import Sequence
from flipfast.engine.step_plan import Chunk, StepPlan

# How many running sequences end before waiting ones take their places, if these come in groups: at
# most so many, and at most one of so many that run.
_MOST_HELD, _RUNNING_A_HELD = 8, 32


@dataclass
class SchedulerCounters:
    """Totals since the engine was made.

    Attributes:
        prompt_tokens: of all admitted prompts; a preempted one counts again.
        prefix_tokens: of these, found in cached pages.
        copied_pages: pages that held the rest of a sequence's prompt, or of the pinned prefix it
            begins with, and were copied for it.
        preemptions: times that a sequence lost its pages and had to be computed again.
    """

    prompt_tokens: int = 0
    prefix_tokens: int = 0
    copied_pages: int = 0
    preemptions: int = 0


class Scheduler:
    """First come, first served, within a budget of tokens per step and of pages.

    Running sequences go first, in order of admission, each with as many of its remaining tokens
    as the budget allows: one for a decoding sequence, a chunk of the prompt otherwise (chunked
    prefill). Waiting sequences follow while there is budget, and pages for their whole prompt. If
    a running sequence finds no free page, the one admitted last is preempted.

    A sequence with a leader waits until the leader's prompt is in pages. It then shares the full
    pages and gets its own copy of the last, partly filled one.

    With `groups`, sequences for which there was no place or no page wait until several running ones
    have ended, and then join together, so that most steps only decode. Nobody waits otherwise.

    Args:
        cache: pages and known prefixes.
        max_seqs: maximum number of sequences running at a time.
        max_tokens: maximum number of tokens per step, at least max_seqs.
        groups: whether waiting sequences join in groups: worth it where steps that only decode are
            faster by more than their number, as CUDA graphs make them.
    """

    def __init__(
        self, cache: PrefixCache, *, max_seqs: int, max_tokens: int, groups: bool = False
    ) -> None:
        self.cache = cache
        self.max_tokens = max_tokens
        self.max_seqs = max_seqs
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.counters = SchedulerCounters()
        self._groups = groups
        self._held_above = max_seqs  # running sequences, at more of which waiting ones are held
        self.restore_limits()
        self._slots = list(range(max_seqs - 1, -1, -1))

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.waiting and not self.running

    def refusal(self, n_tokens: int) -> str | None:
        """Why a sequence of n_tokens, output included, can never run; None if it can."""
        pages = self._n_pages(n_tokens)
        if pages <= self.cache.pool.capacity:
            return None
        size = self.cache.page_size
        return (
            f"{n_tokens} tokens need {pages} pages of {size} tokens, and the key-value cache has "
            f"{self.cache.pool.capacity}: give the engine more memory"
        )

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence for which `refusal` has returned None."""
        if self.idle:
            self.restore_limits()
        if not self.waiting:
            self._held_above = self.max_seqs
        self.waiting.append(sequence)

    def plan(self) -> StepPlan:
        """Plan the next step, empty if nothing can run; updates sequences as if it had run."""
        plan = StepPlan()
        preemptions = self.counters.preemptions
        budget = self._plan_running(plan)
        for chunk in plan.chunks:
            self._count(chunk, plan)
        # A sequence preempted just now must not be readmitted in the same step: it may have a
        # token in a step in flight that has not reached the host.
        if self.counters.preemptions == preemptions and len(self.running) <= self._held_above:
            self._admit(plan, budget)
        return plan

    def room_for_drafts(self, plan: StepPlan) -> int:
        """How many more tokens a plan may take."""
        return self._token_limit - plan.n_rows

    def add_draft(self, plan: StepPlan, index: int, draft: SequenceOf[int]) -> None:
        """Append draft tokens to a planned chunk, as far as there are pages to spare.

        `settle` keeps the accepted tokens of a draft; its pages serve later tokens in any case.
        """
        chunk = plan.chunks[index]
        sequence, size = chunk.sequence, self.cache.page_size
        # Running sequences may soon need a page each: drafts must not cause a preemption.
        spare = max(self.cache.pool.n_available - len(self.running), 0)
        draft = draft[: (len(sequence.pages) + spare) * size - sequence.n_computed]
        self._take_pages(sequence, len(draft))
        sequence.n_computed += len(draft)
        plan.chunks[index] = chunk._replace(draft=draft)

    def settle(self, sequence: Sequence) -> None:
        """Correct a sequence's counts after its draft was verified; the host has all its tokens."""
        sequence.n_sampled = len(sequence.output_ids)
        sequence.n_computed = min(sequence.n_computed, sequence.n_tokens - 1)

    def remove(self, sequence: Sequence) -> None:
        """Remove a sequence that has ended or is to be dropped."""
        if sequence.slot >= 0:
            self.running.remove(sequence)
            self._vacate(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def roll_back(self, plan: StepPlan) -> None:
        """Undo a plan whose step has failed: queue its sequences again, in their old order."""
        self.cache.forget(plan.registered)
        for chunk in reversed(plan.chunks):
            if chunk.samples and chunk.epoch == chunk.sequence.epoch:
                chunk.sequence.n_sampled -= 1
            self._send_back(chunk.sequence)

    def shrink(self, plan: StepPlan) -> None:
        """Limit later plans to half the sequences and tokens of a plan that failed."""
        self._seq_limit = max(1, len(plan.chunks) // 2)
        self._token_limit = max(1, plan.n_rows // 2)

    def restore_limits(self) -> None:
        """Restore the original limits; adding a sequence to an idle scheduler does so, too."""
        self._seq_limit, self._token_limit = self.max_seqs, self.max_tokens

    def _plan_running(self, plan: StepPlan) -> int:
        """Plan chunks for running sequences; returns the remaining token budget."""
        budget = self._token_limit
        for sequence in list(self.running):
            if sequence.slot < 0 or sequence.all_planned:  # preempted just now, or all planned
                continue
            n_left = sequence.n_left
            n = min(n_left, budget)
            if n == 0:
                break
            while not self._take_pages(sequence, n):
                victim = self.running[-1]
                self._send_back(victim)
                self.counters.preemptions += 1
                if victim is sequence:
                    break
            if sequence.slot >= 0:
                budget -= n
                plan.chunks.append(_chunk(sequence, n, n_left))
        return budget

    def _admit(self, plan: StepPlan, budget: int) -> None:
        """Start waiting sequences; the last one may get only a part of its prompt done.

        A running prompt that is only partly done has used up the budget, so none overtakes it.
        """
        followers: list[Sequence] = []  # of prompts that this step runs: they join the next step
        full = False
        while self.waiting and budget:
            sequence = self.waiting[0]
            # Followers count as running, so that few prompts hold pages at a time.
            full = len(self.running) + len(followers) >= self._seq_limit
            if full:
                break
            if sequence.leader in plan.prefilling:
                followers.append(self.waiting.popleft())
                continue
            pages = self.cache.match(sequence)
            full = not self._has_room(sequence, pages)
            if full:
                break
            self.waiting.popleft()
            self._start(sequence, pages, plan)
            n = min(sequence.n_left, budget)
            budget -= n
            chunk = _chunk(sequence, n, sequence.n_left)
            plan.chunks.append(chunk)
            self._count(chunk, plan)
        self.waiting.extendleft(reversed(followers))
        self._held_above = self.max_seqs
        if self._groups and full and not followers:
            n_held = min(_MOST_HELD, len(self.running) // _RUNNING_A_HELD)
            self._held_above = len(self.running) - n_held

    def _has_room(self, sequence: Sequence, pages: list[int]) -> bool:
        """Whether a sequence may be admitted, given the pages that it would share."""
        needed = self._n_pages(sequence.n_tokens) - len(pages)
        # Kept pages that it would share cannot be taken by anyone else. Running sequences will
        # soon need a page each: without a reserve, they would preempt this one at once.
        spare = self.cache.pool.n_available - self.cache.n_kept(pages) - len(self.running)
        return needed <= spare or not self.running

    def _start(self, sequence: Sequence, pages: list[int], plan: StepPlan) -> None:
        """Give a sequence a slot and all pages that its current tokens need."""
        self.cache.attach(sequence, pages)
        sequence.slot = self._slots.pop()
        self.running.append(sequence)
        plan.admitted.append(sequence)
        self._take_pages(sequence, sequence.n_left)
        # The source page may be evicted for another sequence of this step, which writes to it only
        # after the copy. A page that this step has yet to fill cannot be copied.
        rest = self.cache.match_rest(sequence)
        if rest is not None and rest[0] not in plan.registered:
            source, n = rest
            plan.copies.append((source, sequence.pages[sequence.n_registered]))
            sequence.n_computed += n
            self.counters.copied_pages += 1
        self.counters.prompt_tokens += sequence.n_prompt
        self.counters.prefix_tokens += sequence.n_computed

    def _count(self, chunk: Chunk, plan: StepPlan) -> None:
        """Update the sequence and the plan as if the chunk had run."""
        sequence = chunk.sequence
        sequence.n_computed += chunk.n
        if chunk.start < sequence.n_prompt:
            plan.registered += self.cache.register(sequence)
            plan.prefilling.add(sequence)
        if chunk.samples:
            sequence.n_sampled += 1

    def _take_pages(self, sequence: Sequence, n: int) -> bool:
        """Take pages for the next n tokens; returns False, taking none, if there are too few."""
        missing = self._n_pages(sequence.n_computed + n) - len(sequence.pages)
        if missing <= 0:
            return True
        if missing > self.cache.pool.n_available:
            return False
        sequence.pages += [self.cache.pool.take() for _ in range(missing)]
        return True

    def _send_back(self, sequence: Sequence) -> None:
        """Move a running sequence to the head of the queue, to be recomputed from its tokens."""
        self.running.remove(sequence)
        self._vacate(sequence)
        self.waiting.appendleft(sequence)

    def _vacate(self, sequence: Sequence) -> None:
        self.cache.pool.release(sequence.pages)
        self._slots.append(sequence.slot)
        sequence.pages, sequence.slot = [], -1
        sequence.n_computed = 0

    def _n_pages(self, n_tokens: int) -> int:
        return -(-n_tokens // self.cache.page_size)


def _chunk(sequence: Sequence, n: int, n_left: int) -> Chunk:
    """The next n of a sequence's n_left tokens."""
    samples = n == n_left and not sequence.targets
    return Chunk(sequence, sequence.n_computed, n, samples, sequence.epoch)
