"""Which tokens a step tries in advance, and whether that is worth its cost."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

from flipfast._core import Drafter
from flipfast.engine.scheduler import Scheduler
from flipfast.engine.sequence import MAX_DRAFT, Sequence
from flipfast.engine.step_costs import Prices, StepCosts
from flipfast.engine.step_plan import StepPlan

_PRICES = Prices(step=1.0, sequence=0.1, row=0.05, drafted=0.0)  # before any have been seen
_SAFE = 1.5  # a draft must promise so much more than it costs
_LEAST_CHANCE = 0.1  # below, an estimate is no more than a guess
_LONGEST_PAUSE = 64  # steps


class Drafting:
    """Extends plans by tokens that may well come next (Leviathan et al. 2023).

    Proposed is what follows in the request's drafts, its prompt, its own output or earlier outputs
    where the last tokens stood before. A token is tried while its chance of being right, estimated
    from how such proposals have fared, is above what makes its row in the step worth the time that
    it saves later; both are learnt as the engine runs. On a device that saturates with the plain
    step hardly any token passes, and drafting stops by itself. A sequence whose draft went wrong
    gets at most twice as many tokens next time as were right, and one more.

    Args:
        overlap: whether steps overlap with planning; a draft does away with that, as it goes on
            from tokens that the host must have, so that it is only tried anew after a pause where
            it was not worth it.
    """

    def __init__(self, *, overlap: bool) -> None:
        self._costs = StepCosts()
        self._drafter = Drafter(MAX_DRAFT)
        self._overlap = overlap
        self._pause = 0
        self._next_pause = 1

    def wanted(self, running: SequenceOf[Sequence]) -> bool:
        """Whether the next step should know all tokens, for drafts to go on from them."""
        self._pause -= 1
        return self._pause < 0 and any(sequence.n_sampled for sequence in running)

    def extend(self, plan: StepPlan, scheduler: Scheduler) -> None:
        """Add drafts to the chunks of a plan that sample; the host must know all their tokens."""
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
        """Take note of what a step cost."""
        # Without overlap a step with drafts differs from one without by nothing but its rows.
        drafted = self._overlap and plan.drafted
        self._costs.observe(len(plan.chunks), plan.n_rows, drafted, seconds)

    def learn(self, heard: SequenceOf[tuple[Sequence, list[int]]]) -> None:
        """Take note of output tokens that have been added to sequences."""
        for sequence, tokens in heard:
            _limit(sequence, len(tokens) - 1)
        known = [(s.draft_handle, tokens) for s, tokens in heard if s.draft_handle is not None]
        self._drafter.extend([handle for handle, _ in known], [tokens for _, tokens in known])

    def forget(self, sequence: Sequence) -> None:
        """Drop what is kept for a sequence; if it has come to its end, later ones learn from it."""
        if sequence.draft_handle is not None:
            done = sequence.finish_reason in ("stop", "length")
            self._drafter.close(sequence.draft_handle, learn=done)
            sequence.draft_handle = None

    def _propose(
        self, sequences: list[Sequence], threshold: float
    ) -> list[tuple[list[int], list[float]]]:
        """A draft for each sequence, and the chances of its tokens."""
        handles = []
        for sequence in sequences:
            if sequence.draft_handle is None:
                sources = [list(draft) for draft in (*sequence.drafts, sequence.prompt_ids)]
                sequence.draft_handle = self._drafter.open(sources, sequence.output_ids)
            handles.append(sequence.draft_handle)
        return self._drafter.propose(handles, [_most(s) for s in sequences], threshold)


def _most(sequence: Sequence) -> int:
    """Tokens that a draft may have behind the one that is sampled in any case."""
    return min(sequence.sampling.max_new_tokens - sequence.n_sampled, sequence.draft_limit)


def _limit(sequence: Sequence, n_right: int) -> None:
    """Set a sequence's limit by how many tokens of its draft were right."""
    if sequence.n_drafted:
        wrong = n_right < sequence.n_drafted
        limit = 2 * max(n_right, 0) + 1 if wrong else 2 * sequence.draft_limit
        sequence.draft_limit = min(limit, MAX_DRAFT)
        sequence.n_drafted = 0
