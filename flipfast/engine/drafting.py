"""Speculative decoding: which draft tokens a step tries, and whether they are worth their cost."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

from flipfast._core import Drafter
from flipfast.engine.scheduler import Scheduler
from flipfast.engine.sequence import MAX_DRAFT, Sequence
from flipfast.engine.step_costs import Prices, StepCosts
from flipfast.engine.step_plan import StepPlan

_PRICES = Prices(step=1.0, sequence=0.1, row=0.05, drafted=0.0)  # until there is a fit
_SAFE = 1.5  # safety factor on the break-even acceptance probability
_LEAST_CHANCE = 0.1  # estimates below this are no better than a guess
_LONGEST_PAUSE = 64  # steps


class Drafting:
    """Extends plans by draft tokens that are likely to come next (Leviathan et al. 2023).

    A proposal is what followed an earlier occurrence of the last tokens in the request's drafts,
    its prompt, its own output or earlier outputs. A token is tried while its probability of
    acceptance, estimated from the success of similar proposals, is above the point at which the
    time it saves later pays for its row in the step; both are learned as the engine runs. On a
    device that the plain step already saturates, hardly any token qualifies, and drafting stops by
    itself. After a draft with a wrong token, the sequence's next draft has at most twice as many
    tokens as were right, plus one.

    Args:
        overlap: whether steps overlap with planning. A draft prevents that, as it continues tokens
            that the host must know, so drafting pauses whenever it was not worth it.
    """

    def __init__(self, *, overlap: bool) -> None:
        self._costs = StepCosts()
        self._drafter = Drafter(MAX_DRAFT)
        self._overlap = overlap
        self._pause = 0
        self._next_pause = 1

    def wanted(self, running: SequenceOf[Sequence]) -> bool:
        """Whether the next step should wait for all tokens, so that drafts can continue them."""
        self._pause -= 1
        return self._pause < 0 and any(sequence.n_sampled for sequence in running)

    def extend(self, plan: StepPlan, scheduler: Scheduler) -> None:
        """Add drafts to a plan's sampling chunks; the host must know all their tokens."""
        places = [i for i, chunk in enumerate(plan.chunks) if chunk.samples]
        room = scheduler.room_for_drafts(plan)
        if not places or room <= 0:
            return
        sequences = [plan.chunks[i].sequence for i in places]
        prices = self._costs.prices() or _PRICES
        n_later = min(len(scheduler.running) + len(scheduler.waiting), scheduler.max_seqs)
        threshold = max(prices.break_even(n_later) * _SAFE, _LEAST_CHANCE)
        drafts = self._propose(sequences, threshold)
        n_right = sum(sum(chances) for _, chances in drafts)
        n_rows = sum(len(draft) for draft, _ in drafts)
        gain = prices.saved(n_later) * n_right - prices.row * n_rows
        worth_it = gain > prices.drafted
        if self._overlap:
            self._next_pause = 1 if worth_it else min(2 * self._next_pause, _LONGEST_PAUSE)
            self._pause = 0 if worth_it else self._next_pause
        if worth_it:
            for place, (draft, _) in zip(places, drafts, strict=True):
                if draft and room > 0:
                    scheduler.add_draft(plan, place, draft[:room])
                    chunk = plan.chunks[place]
                    room -= len(chunk.draft)
                    chunk.sequence.n_drafted = len(chunk.draft)

    def took(self, plan: StepPlan, seconds: float) -> None:
        """Record the duration of a step."""
        # Without overlap, a step with drafts differs from one without only by its rows.
        drafted = self._overlap and plan.drafted
        self._costs.observe(len(plan.chunks), plan.n_rows, drafted, seconds)

    def learn(self, heard: SequenceOf[tuple[Sequence, list[int]]]) -> None:
        """Learn from output tokens that have been added to sequences."""
        for sequence, tokens in heard:
            _limit(sequence, len(tokens) - 1)
        known = [(s.draft_handle, tokens) for s, tokens in heard if s.draft_handle is not None]
        self._drafter.extend([handle for handle, _ in known], [tokens for _, tokens in known])

    def forget(self, sequence: Sequence) -> None:
        """Drop a sequence's state; a completed sequence's output may serve later drafts."""
        if sequence.draft_handle is not None:
            done = sequence.finish_reason in ("stop", "length")
            self._drafter.close(sequence.draft_handle, learn=done)
            sequence.draft_handle = None

    def _propose(
        self, sequences: list[Sequence], threshold: float
    ) -> list[tuple[list[int], list[float]]]:
        """A draft for each sequence, and the acceptance probabilities of its tokens."""
        handles = []
        for sequence in sequences:
            if sequence.draft_handle is None:
                sources = [list(draft) for draft in (*sequence.drafts, sequence.prompt_ids)]
                sequence.draft_handle = self._drafter.open(sources, sequence.output_ids)
            handles.append(sequence.draft_handle)
        return self._drafter.propose(handles, [_most(s) for s in sequences], threshold)


def _most(sequence: Sequence) -> int:
    """Maximum number of tokens of a draft, besides the one that is sampled in any case."""
    return min(sequence.sampling.max_new_tokens - sequence.n_sampled, sequence.draft_limit)


def _limit(sequence: Sequence, n_right: int) -> None:
    """Set a sequence's draft limit by how many tokens of its draft were right."""
    if sequence.n_drafted:
        wrong = n_right < sequence.n_drafted
        limit = 2 * max(n_right, 0) + 1 if wrong else 2 * sequence.draft_limit
        sequence.draft_limit = min(limit, MAX_DRAFT)
        sequence.n_drafted = 0
