"""Steps that launch every kernel that a later step may launch, so that all are compiled at load."""

from __future__ import annotations

from collections.abc import Iterator

from flipfast.engine.sampling import SamplingParams
from flipfast.engine.sequence import Sequence
from flipfast.engine.step_plan import Chunk, StepPlan

_GREEDY = SamplingParams(max_new_tokens=1)
_SAMPLED = SamplingParams(max_new_tokens=1, temperature=1.0, top_p=0.5)


def warm_up_plans(
    *,
    max_seqs: int,
    max_tokens: int,
    max_positions: int,
    page_size: int,
    drafts: bool,
) -> Iterator[StepPlan]:
    """Steps over the null page: of all kinds of rows, then of chunks of all sizes.

    Which kernel runs depends on the longest chunk, the longest sequence and the number of sequences
    and of rows. Of these numbers, kernels only ask whether they exceed some limit; the steps have
    the smallest and the largest, and chunks of every power of two.

    Args:
        max_seqs, max_tokens: of a step.
        max_positions: maximum number of tokens of a sequence.
        page_size: tokens per page.
        drafts: whether steps may have drafts.
    """

    def chunk(slot: int, sequence: Sequence, n: int = 1, draft: tuple[int, ...] = ()) -> Chunk:
        length = sequence.n_prompt
        sequence.slot, sequence.n_sampled = slot, 1
        sequence.pages = [0] * -(-(length + len(draft)) // page_size)
        return Chunk(sequence, length - n, n, not sequence.targets, sequence.epoch, draft)

    def greedy(length: int = 1) -> Sequence:
        return Sequence([0] * length, _GREEDY)

    # Of three sequences, one may be too long for a tile that the three have room in.
    for n_seqs in {1, min(3, max_seqs), max_seqs}:
        slots = range(n_seqs)
        yield StepPlan([chunk(slot, Sequence([0], _SAMPLED)) for slot in slots])
        yield StepPlan([chunk(slot, Sequence.scoring([0], [0])) for slot in slots])
        yield StepPlan([chunk(slot, greedy()) for slot in slots])
        if drafts and max_tokens > n_seqs:
            rest = [chunk(slot, greedy()) for slot in slots[1:]]
            yield StepPlan([chunk(0, greedy(), draft=(0,)), *rest])
        most = min(max_tokens - n_seqs + 1, max_positions)
        sizes = {2**i for i in range(most.bit_length())} | {most}
        for n in sorted(sizes):
            for length in {n, max_positions}:
                rest = [chunk(slot, greedy()) for slot in slots[1:]]
                yield StepPlan([chunk(0, greedy(length), n), *rest])
