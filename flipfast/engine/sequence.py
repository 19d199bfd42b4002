"""The state of one request in the engine."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from math import isfinite

import numpy as np
import torch
from numpy.typing import NDArray

from flipfast.engine.sampling import SamplingParams
from flipfast.watchers.base import Verdict, Watcher

MAX_DRAFT = 64  # tokens; the acceptance kernel holds one more
TOKEN_BYTES = 4
_USUAL = Verdict()


@dataclass(eq=False)
class Sequence:
    """A prompt with the output so far, or with the scores of its target tokens.

    Attributes:
        prompt_ids: token ids, at least one.
        sampling: how output tokens are chosen; a sequence with targets has none.
        n_prompt: number of tokens of the prompt.
        seed: of the sampling.
        drafts: what the output may repeat; see `InversionRequest`.
        watcher: may end the output, or write into it.
        leader: a sequence with the same prompt, which computes it for both.
        leads: whether it is the leader of another sequence.
        targets: see `Sequence.scoring`.
        log_probs: natural log-probabilities of the targets that have reached the host.
        best_ids: the likeliest token at each target's position.
        output_ids: output tokens that have reached the host, without an end token.
        n_sampled: number of output tokens, including those of a step in flight.
        n_computed: number of tokens whose keys and values are in pages, including those of a step
            in flight.
        pages: page numbers, in the order of positions.
        node: prefix-cache node of the last registered full page of the prompt.
        n_registered: number of pages that the prefix cache knows.
        slot: row of the device's state, -1 outside the running set.
        draft_handle: the drafter's handle for it.
        n_drafted: number of its draft tokens in the step in flight.
        draft_limit: maximum number of tokens of its next draft.
        epoch: how often tokens were written into it; samples of an earlier epoch are void.
        finish_reason: None while it runs, then "stop", "length", "pruned", "error" or "cancelled".
        error: what went wrong.
        output_row: int32 (max_new_tokens,), contiguous, on the runner's device, filled with the
            output tokens as they are sampled, an end token included; None for no such copy.
        on_end: called with the sequence when it has ended, by the thread whose step ended it or
            that cancelled it.
    """

    prompt_ids: list[int]
    sampling: SamplingParams
    n_prompt: int = field(init=False)
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
        self.n_prompt = len(self.prompt_ids)
        self._prompt_bytes = np.asarray(self.prompt_ids, dtype="<i4").tobytes()
        if self.watcher is not None:
            self._write(self.watcher.start()[: self.sampling.max_new_tokens - 1])

    @classmethod
    def scoring(cls, prompt_ids: SequenceOf[int], target_ids: SequenceOf[int]) -> Sequence:
        """A sequence that samples nothing but scores given tokens after a prompt.

        Its prompt_ids are the prompt and all targets but the last; each of the last
        len(target_ids) rows predicts the token after it, a target.

        Args:
            prompt_ids: token ids, at least one.
            target_ids: token ids that follow them, at least one.
        """
        rows = [*prompt_ids, *target_ids[:-1]]
        return cls(rows, SamplingParams(max_new_tokens=1), targets=list(target_ids))

    @property
    def n_tokens(self) -> int:
        """Number of tokens of prompt and output, including one that is being sampled."""
        return self.n_prompt + self.n_sampled

    @property
    def n_left(self) -> int:
        """Number of tokens to run before the next one can be sampled."""
        return self.n_prompt + self.n_sampled - self.n_computed

    @property
    def n_most(self) -> int:
        """Maximum number of tokens that it may reach."""
        return self.n_prompt + (0 if self.targets else self.sampling.max_new_tokens)

    @property
    def first_scored(self) -> int:
        """Position of the first row that gives a target's probability; n_prompt if none does."""
        return self.n_prompt - len(self.targets)

    @property
    def all_planned(self) -> bool:
        """Whether its last row or its last permitted token has been, or is being, computed."""
        if self.targets:
            return self.n_left == 0
        return self.n_sampled >= self.sampling.max_new_tokens

    @property
    def n_reusable(self) -> int:
        """Number of tokens that need not run if they are in pages; rows with logits must run."""
        return min(self.n_tokens - 1, self.first_scored)

    def known_ids(self, start: int, end: int) -> NDArray[np.int32]:
        """Token ids at positions start to end (exclusive), as far as the host has them."""
        prompt = np.frombuffer(self._prompt_bytes, dtype="<i4")[start:end]
        if end <= self.n_prompt:
            return prompt
        output = self.output_ids[max(start - self.n_prompt, 0) : end - self.n_prompt]
        return np.concatenate([prompt, np.array(output, dtype=np.int32)])

    def page_key(self, index: int, page_size: int) -> bytes:
        """The prefix cache's key for a page of the prompt: the bytes of its token ids."""
        width = page_size * TOKEN_BYTES
        return self._prompt_bytes[index * width : (index + 1) * width]

    def accept(self, token: int, end_ids: frozenset[int]) -> None:
        """Take a sampled token that has reached the host, subject to the watcher's verdict."""
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
        """Take the scores of rows from position `start` on; recomputed rows overwrite theirs."""
        places = slice(start - self.first_scored, start - self.first_scored + len(log_probs))
        self.log_probs[places], self.best_ids[places] = log_probs, best_ids
        bad = next((i for i, value in enumerate(log_probs) if not isfinite(value)), None)
        if bad is not None:
            self.fail_on_logits(f"target token {places.start + bad}")
        elif len(self.log_probs) == len(self.targets):
            self.finish_reason = "stop"

    def _write(self, tokens: SequenceOf[int]) -> None:
        """Append tokens that were not sampled; steps that continued with other ones are void."""
        self.n_computed = min(self.n_computed, self.n_prompt + len(self.output_ids))
        self.output_ids += tokens[: self.sampling.max_new_tokens - len(self.output_ids)]
        self.n_sampled = len(self.output_ids)
        self.epoch += 1

    def fail_on_logits(self, place: str) -> None:
        """End with an error because logits are infinite or NaN."""
        self.fail(
            f"the model's logits are not finite at {place}; another dtype may help (float32, or "
            "bfloat16 instead of float16)"
        )

    def fail(self, error: str) -> None:
        """End with an error."""
        self.finish_reason, self.error = "error", error


def lead_samples(sequences: SequenceOf[Sequence]) -> None:
    """Make the first sequence of each prompt the leader of later ones with the same prompt."""
    leaders: dict[bytes, Sequence] = {}
    for sequence in sequences:
        leader = leaders.setdefault(sequence._prompt_bytes, sequence)
        if leader is not sequence:
            sequence.leader, leader.leads = leader, True
