"""A step's plan: which tokens of which sequences it will run."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from typing import NamedTuple

from flipfast.engine.sequence import Sequence


class Chunk(NamedTuple):
    """Tokens of one sequence in a step.

    Attributes:
        sequence: whose tokens.
        start: position of the first one.
        n: how many.
        samples: whether the last one's logits give an output token.
        epoch: of the sequence when the chunk was planned.
        draft: draft tokens that run after these; requires that the host knows all n tokens.
    """

    sequence: Sequence
    start: int
    n: int
    samples: bool
    epoch: int
    draft: SequenceOf[int] = ()

    @property
    def n_rows(self) -> int:
        """Tokens to run, the draft included."""
        return self.n + len(self.draft)

    @property
    def n_scored(self) -> int:
        """How many rows, counted from the last, give the probability of a target."""
        if not self.sequence.targets:
            return 0
        return min(self.n, max(self.start + self.n - self.sequence.first_scored, 0))


@dataclass
class StepPlan:
    """What one step computes.

    Attributes:
        chunks: rows of the step, first admitted first.
        admitted: sequences that joined in this step.
        prefilling: sequences of whose prompt it runs at least a part.
        registered: pages that this plan added to the prefix cache.
        copies: (from, to) page numbers, to be copied together before anything is written: a page
            may be copied and then overwritten.
    """

    chunks: list[Chunk] = field(default_factory=list)
    admitted: list[Sequence] = field(default_factory=list)
    prefilling: set[Sequence] = field(default_factory=set)
    registered: list[int] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)

    @property
    def drafted(self) -> bool:
        """Whether any chunk has a draft."""
        return any(chunk.draft for chunk in self.chunks)

    @property
    def n_rows(self) -> int:
        """Tokens of the step, drafts included."""
        return sum(chunk.n + len(chunk.draft) for chunk in self.chunks)
