"""Which tokens of which sequences run in the next step."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, replace

from flipfast.engine.prefix_cache import PrefixCache
from flipfast.engine.sequence import Sequence
from flipfast.engine.step_plan import Chunk, StepPlan


@dataclass
class SchedulerCounters:
    """Totals since the engine was made.

    Attributes:
        prompt_tokens: of all admitted prompts; a preempted one counts again.
        prefix_tokens: of these, found in pages.
        copied_pages: pages that held the rest of a sequence's prompt and were copied for it.
        preemptions: sequences that lost their pages and had to start again.
    """

    prompt_tokens: int = 0
    prefix_tokens: int = 0
    copied_pages: int = 0
    preemptions: int = 0


class Scheduler:
    """First come, first served, under a budget of tokens a step and of pages.

    Running sequences go first, in the order of their admission, each with all the tokens it has
    left as far as the budget goes: one for a decoding sequence, a chunk of the prompt otherwise.
    Waiting ones follow while there is budget and room for their whole prompt. Where a running
    sequence finds no page, the one admitted last gives its pages up and starts again later.

    A sequence with a leader waits until the leader's prompt is in pages. Then it shares the full
    ones and gets a copy of the last one, where each goes on behind the prompt.

    Args:
        cache: pages and known prefixes.
        max_seqs: most sequences running at a time.
        max_tokens: most tokens a step, at least max_seqs.
    """

    def __init__(self, cache: PrefixCache, *, max_seqs: int, max_tokens: int) -> None:
        self.cache = cache
        self.max_tokens = max_tokens
        self.max_seqs = max_seqs
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.counters = SchedulerCounters()
        self.restore_limits()
        self._slots = list(range(max_seqs - 1, -1, -1))

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.waiting and not self.running

    def refusal(self, n_tokens: int) -> str | None:
        """Why a sequence of that many tokens, output included, can never run; None if it can."""
        pages = self._n_pages(n_tokens)
        if pages <= self.cache.pool.capacity:
            return None
        size = self.cache.page_size
        return (
            f"{n_tokens} tokens need {pages} pages of {size} tokens, and the key-value cache has "
            f"{self.cache.pool.capacity}: give the engine more memory"
        )

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence; `refusal` must have let it pass."""
        if self.idle:
            self.restore_limits()
        self.waiting.append(sequence)

    def plan(self) -> StepPlan:
        """The next step, empty if nothing can run now; its books are as if it had run."""
        plan = StepPlan()
        preemptions = self.counters.preemptions
        budget = self._plan_running(plan)
        for chunk in plan.chunks:
            self._count(chunk, plan)
        # Whoever has just given way comes back in a later step: until then the token that it may
        # have in a step under way has reached the host.
        if self.counters.preemptions == preemptions:
            self._admit(plan, budget)
        return plan

    def room_for_drafts(self, plan: StepPlan) -> int:
        """How many more tokens a plan may get."""
        return self._token_limit - plan.n_rows

    def add_draft(self, plan: StepPlan, index: int, draft: SequenceOf[int]) -> None:
        """Let a planned chunk go on with drafted tokens, as far as there are pages to spare.

        A draft that was right is kept by `settle`, and its pages serve what comes next in any case.
        """
        chunk = plan.chunks[index]
        sequence, size = chunk.sequence, self.cache.page_size
        # Running sequences may soon want a page each: drafts must not make one give way.
        spare = max(self.cache.pool.n_available - len(self.running), 0)
        draft = draft[: (len(sequence.pages) + spare) * size - sequence.n_computed]
        self._take_pages(sequence, len(draft))
        sequence.n_computed += len(draft)
        plan.chunks[index] = replace(chunk, draft=draft)

    def settle(self, sequence: Sequence) -> None:
        """Correct the books of a sequence whose draft has been looked at; the host has it all."""
        sequence.n_sampled = len(sequence.output_ids)
        sequence.n_computed = min(sequence.n_computed, sequence.n_tokens - 1)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence that has ended, or is to be dropped, out of the books."""
        if sequence.slot >= 0:
            self.running.remove(sequence)
            self._vacate(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def roll_back(self, plan: StepPlan) -> None:
        """Undo a plan whose step has failed: its sequences wait again, in their old order."""
        self.cache.forget(plan.registered)
        for chunk in reversed(plan.chunks):
            if chunk.samples and chunk.epoch == chunk.sequence.epoch:
                chunk.sequence.n_sampled -= 1
            self._send_back(chunk.sequence)

    def shrink(self, plan: StepPlan) -> None:
        """Plan at most half as much at a time as in a plan that failed."""
        self._seq_limit = max(1, len(plan.chunks) // 2)
        self._token_limit = max(1, plan.n_rows // 2)

    def restore_limits(self) -> None:
        """Plan as much at a time as was asked for; so does the first sequence after a pause."""
        self._seq_limit, self._token_limit = self.max_seqs, self.max_tokens

    def _plan_running(self, plan: StepPlan) -> int:
        """Chunks for running sequences; returns the budget that is left."""
        budget = self._token_limit
        for sequence in list(self.running):
            if sequence.slot < 0 or sequence.all_planned:  # preempted just now, or all but done
                continue
            n = min(sequence.n_left, budget)
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
                plan.chunks.append(self._chunk(sequence, n))
        return budget

    def _admit(self, plan: StepPlan, budget: int) -> None:
        """Start waiting sequences; the last one may get only a part of its prompt done.

        A running prompt that is only partly done has used the budget up, so that none overtakes it.
        """
        followers: list[Sequence] = []  # of prompts that this step runs: they come with the next
        # Their places are theirs, so that few prompts are in pages at a time.
        while self.waiting and budget and len(self.running) + len(followers) < self._seq_limit:
            sequence = self.waiting[0]
            if sequence.leader in plan.prefilling:
                followers.append(self.waiting.popleft())
                continue
            pages = self.cache.match(sequence)
            if not self._has_room(sequence, pages):
                break
            self.waiting.popleft()
            self._start(sequence, pages, plan)
            n = min(sequence.n_left, budget)
            budget -= n
            chunk = self._chunk(sequence, n)
            plan.chunks.append(chunk)
            self._count(chunk, plan)
        self.waiting.extendleft(reversed(followers))

    def _has_room(self, sequence: Sequence, pages: list[int]) -> bool:
        """Whether a sequence may join, given the pages that it would share."""
        needed = self._n_pages(sequence.n_tokens) - len(pages)
        # Kept pages that it would share are no longer there to be taken. Sequences that run will
        # soon want a page each: leave them one, or they would preempt this one at once.
        spare = self.cache.pool.n_available - self.cache.n_kept(pages) - len(self.running)
        return needed <= spare or not self.running

    def _start(self, sequence: Sequence, pages: list[int], plan: StepPlan) -> None:
        """Give a sequence a slot and all the pages that its tokens need so far."""
        self.cache.attach(sequence, pages)
        sequence.slot = self._slots.pop()
        self.running.append(sequence)
        plan.admitted.append(sequence)
        self._take_pages(sequence, sequence.n_left)
        # The page with the rest of the prompt may be given up for another sequence of this step,
        # which writes there after the copy; what this step is yet to write cannot be copied.
        source = self.cache.match_rest(sequence)
        if source is not None and source not in plan.registered:
            target = sequence.pages[sequence.n_reusable // self.cache.page_size]
            plan.copies.append((source, target))
            sequence.n_computed = sequence.n_reusable
            self.counters.copied_pages += 1
        self.counters.prompt_tokens += sequence.n_prompt
        self.counters.prefix_tokens += sequence.n_computed

    def _chunk(self, sequence: Sequence, n: int) -> Chunk:
        samples = n == sequence.n_left and not sequence.targets
        return Chunk(sequence, sequence.n_computed, n, samples=samples, epoch=sequence.epoch)

    def _count(self, chunk: Chunk, plan: StepPlan) -> None:
        """Write a chunk into the books."""
        chunk.sequence.n_computed += chunk.n
        plan.registered += self.cache.register(chunk.sequence)
        if chunk.start < chunk.sequence.n_prompt:
            plan.prefilling.add(chunk.sequence)
        if chunk.samples:
            chunk.sequence.n_sampled += 1

    def _take_pages(self, sequence: Sequence, n: int) -> bool:
        """Pages for the next n tokens; False, and none taken, if there are not enough."""
        missing = self._n_pages(sequence.n_computed + n) - len(sequence.pages)
        if missing > self.cache.pool.n_available:
            return False
        sequence.pages += [self.cache.pool.take() for _ in range(missing)]
        return True

    def _send_back(self, sequence: Sequence) -> None:
        """From the running set to the head of the queue, to be computed again from its tokens."""
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
