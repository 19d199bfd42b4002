"""One request on its way through the engine."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from math import isfinite

import numpy as np
import torch

from flipfast.engine.sampling import SamplingParams
from flipfast.watchers.base import Verdict, Watcher

MAX_DRAFT = 64  # tokens; the kernel that accepts them holds one more
_TOKEN_BYTES = 4
_USUAL = Verdict()


@dataclass(eq=False)
class Sequence:
    """A prompt and what the model has added to it so far, or thinks of its last tokens.

    Attributes:
        prompt_ids: token ids, at least one.
        sampling: how output tokens are chosen; with targets there are none.
        seed: of the sampling.
        drafts: what the output may repeat; see `InversionRequest`.
        watcher: may end the output, or write into it.
        leader: a sequence with the same prompt that runs it for this one, too.
        leads: whether it is anyone's leader.
        targets: see `Sequence.scoring`.
        log_probs: of the targets, natural logarithms, as far as they have reached the host.
        best_ids: the likeliest token in the place of each.
        output_ids: output tokens that have reached the host, without an end token.
        n_sampled: output tokens, those of a step under way included.
        n_computed: tokens whose keys and values are in pages, a step under way included.
        pages: page numbers, in the order of positions.
        node: prefix-cache node of the last of the prompt's full pages that is registered.
        n_registered: pages that the prefix cache knows.
        slot: row of the device's state, -1 outside the running set.
        draft_handle: under which the drafter knows it.
        n_drafted: tokens of the draft that it has in the step under way.
        draft_limit: most tokens of its next draft.
        epoch: how often it was written into; what a step sampled in an earlier one is void.
        finish_reason: None while it runs, then "stop", "length", "pruned", "error" or "cancelled".
        error: what went wrong.
        output_row: int32 (max_new_tokens,), contiguous, on the runner's device, filled with the
            output tokens as they are sampled, an end token included; None for no such copy.
        on_end: called with the sequence when it has ended, by the thread whose step ended it or
            that cancelled it.
    """

    prompt_ids: list[int]
    sampling: SamplingParams
    seed: int = 0
    drafts: tuple[SequenceOf[int], ...] = ()
    watcher: Watcher | None = None
    leader: Sequence | None = None
    leads: bool = False
    targets: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    best_ids: list[int] = field(default_factory=list)
    output_ids: list[int] = field(default_factory=list)
    n_sampled: int = 0
    n_computed: int = 0
    pages: list[int] = field(default_factory=list)
    node: int = 0
    n_registered: int = 0
    slot: int = -1
    draft_handle: int | None = None
    n_drafted: int = 0
    draft_limit: int = MAX_DRAFT
    epoch: int = 0
    finish_reason: str | None = None
    error: str | None = None
    output_row: torch.Tensor | None = None
    on_end: Callable[[Sequence], object] | None = None

    def __post_init__(self) -> None:
        self._prompt_bytes = np.asarray(self.prompt_ids, dtype="<i4").tobytes()
        if self.watcher is not None:
            self._write(self.watcher.start()[: self.sampling.max_new_tokens - 1])

    @classmethod
    def scoring(cls, prompt_ids: SequenceOf[int], target_ids: SequenceOf[int]) -> Sequence:
        """A sequence that samples nothing, but asks how likely given tokens are behind a prompt.

        The prompt's last rows, one a target, give what comes behind them; a target's own row is
        there for the next one.

        Args:
            prompt_ids: token ids, at least one.
            target_ids: what follows them, at least one.
        """
        rows = [*prompt_ids, *target_ids[:-1]]
        return cls(rows, SamplingParams(max_new_tokens=1), targets=list(target_ids))

    @property
    def n_prompt(self) -> int:
        """Tokens of the prompt."""
        return len(self.prompt_ids)

    @property
    def n_tokens(self) -> int:
        """Tokens of prompt and output, one that is being sampled included."""
        return len(self.prompt_ids) + self.n_sampled

    @property
    def n_left(self) -> int:
        """Tokens to run before the next one can be sampled."""
        return self.n_tokens - self.n_computed

    @property
    def n_most(self) -> int:
        """Tokens that it may come to have."""
        return self.n_prompt + (0 if self.targets else self.sampling.max_new_tokens)

    @property
    def first_scored(self) -> int:
        """Position of the first row that gives a target's probability; behind all if none does."""
        return self.n_prompt - len(self.targets)

    @property
    def all_planned(self) -> bool:
        """Whether its last row or its last permitted token has been, or is being, worked out."""
        if self.targets:
            return self.n_left == 0
        return self.n_sampled >= self.sampling.max_new_tokens

    @property
    def n_reusable(self) -> int:
        """Tokens of the prompt that need not run if they are in pages; rows with logits have to."""
        return min(self.n_tokens - 1, self.first_scored)

    def known_tokens(self, start: int, end: int) -> list[int]:
        """Token ids at positions start to end (exclusive), as far as the host has them."""
        n_prompt = len(self.prompt_ids)
        if end <= n_prompt:
            return self.prompt_ids[start:end]
        output = self.output_ids[max(start - n_prompt, 0) : end - n_prompt]
        return self.prompt_ids[start:n_prompt] + output

    def page_key(self, index: int, page_size: int) -> bytes:
        """What a page of the prompt holds, as the prefix cache's key."""
        width = page_size * _TOKEN_BYTES
        return self._prompt_bytes[index * width : (index + 1) * width]

    def accept(self, token: int, end_ids: frozenset[int]) -> None:
        """Take a sampled token that has reached the host, as its watcher wants it."""
        verdict = _USUAL
        if self.watcher is not None:
            n_left = self.sampling.max_new_tokens - len(self.output_ids) - 1
            verdict = self.watcher.see(token, n_left) or _USUAL
        ends = verdict.ends
        if verdict.written is not None:
            self._write(verdict.written)
        elif token in end_ids:
            ends = True
        else:
            self.output_ids.append(token)
        if ends:
            self.finish_reason = verdict.reason
        elif len(self.output_ids) >= self.sampling.max_new_tokens:
            self.finish_reason = "length"

    def take_scores(self, start: int, log_probs: list[float], best_ids: list[int]) -> None:
        """Take what rows from position `start` on have given; again, if they were run again."""
        places = slice(start - self.first_scored, start - self.first_scored + len(log_probs))
        self.log_probs[places], self.best_ids[places] = log_probs, best_ids
        bad = next((i for i, value in enumerate(log_probs) if not isfinite(value)), None)
        if bad is not None:
            self.fail_on_logits(f"target token {places.start + bad}")
        elif len(self.log_probs) == len(self.targets):
            self.finish_reason = "stop"

    def _write(self, tokens: SequenceOf[int]) -> None:
        """Add tokens that nobody sampled; a step that went on behind other ones is void."""
        self.n_computed = min(self.n_computed, self.n_prompt + len(self.output_ids))
        self.output_ids += tokens[: self.sampling.max_new_tokens - len(self.output_ids)]
        self.n_sampled = len(self.output_ids)
        self.epoch += 1

    def fail_on_logits(self, place: str) -> None:
        """End because logits are infinite or no numbers."""
        self.fail(
            f"the model's logits are not finite at {place}; another dtype may help (float32, or "
            "bfloat16 instead of float16)"
        )

    def fail(self, error: str) -> None:
        """End with an error."""
        self.finish_reason, self.error = "error", error


def lead_samples(sequences: SequenceOf[Sequence]) -> None:
    """Make the first sequence of each prompt the leader of those behind it with the same prompt."""
    leaders: dict[bytes, Sequence] = {}
    for sequence in sequences:
        leader = leaders.setdefault(sequence._prompt_bytes, sequence)
        if leader is not sequence:
            sequence.leader, leader.leads = leader, True
