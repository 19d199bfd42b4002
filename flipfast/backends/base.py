"""The inverter interface: prompts as token ids in, inferred texts out."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from flipfast.engine.sampling import SamplingParams
from flipfast.errors import ConfigError
from flipfast.metrics.token_bytes import TokenBytes, verified_token_bytes
from flipfast.watchers.base import Watcher

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Inversion",
    "InversionRequest",
    "Inverter",
    "Likelihood",
    "LikelihoodRequest",
    "SamplingParams",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InversionRequest:
    """One prompt to continue.

    Args:
        prompt_ids: token ids of the whole prompt, special tokens included.
        seed: fixes this request's random choices; greedy decoding ignores it. Derive it from the
            request's content, never from its place in a list.
        drafts: token ids that the output may repeat, the likeliest first; -1 as a first entry
            stands for the output's start. They affect speed, never the result.
        watcher: sees the output as it grows, on inverters with `watches`.
    """

    prompt_ids: Sequence[int]
    seed: int = 0
    drafts: tuple[Sequence[int], ...] = ()
    watcher: Watcher | None = None


@dataclass(frozen=True)
class Inversion:
    """The output for one request.

    Args:
        output_ids: the new token ids, without the end token.
        text: the output decoded without special tokens; None if the caller wanted no text.
        finish_reason: "stop" (ended by the model or a watcher), "length" (max_new_tokens
            reached), "pruned" (a watcher had no use for the rest) or "error".
        error: what went wrong; set only if finish_reason is "error".
    """

    output_ids: list[int]
    text: str | None
    finish_reason: str
    error: str | None = None

    @classmethod
    def failed(cls, error: str) -> Inversion:
        """The result of a request that could not be run, with the reason."""
        return cls([], "", "error", error)


@dataclass(frozen=True)
class LikelihoodRequest:
    """A prompt and the tokens after it whose probabilities are wanted.

    Args:
        prompt_ids: token ids of the whole prompt, special tokens included.
        target_ids: token ids that follow the prompt, at least one.
    """

    prompt_ids: Sequence[int]
    target_ids: Sequence[int]


@dataclass(frozen=True)
class Likelihood:
    """The probability of each target token of a request, given all tokens before it.

    Args:
        logprobs: natural log-probabilities of the targets, without temperature or penalties.
        best_ids: the likeliest token at each target's position.
        error: what went wrong (the lists are then empty), or None.
    """

    logprobs: list[float]
    best_ids: list[int]
    error: str | None = None


class Inverter(ABC):
    """A language model that continues prompts; every backend implements this class.

    A backend is one file in this folder with a `load(model, **options) -> Inverter`.

    Attributes:
        tokenizer: the model's own tokenizer, with its chat template.
        context_length: maximum number of tokens of prompt and output together.
        vocab_size: token ids are in [0, vocab_size).
    """

    tokenizer: PreTrainedTokenizerBase
    context_length: int
    vocab_size: int

    @property
    def token_device(self) -> torch.device | None:
        """Device on which output tokens can stay for scoring there; None if there is none."""
        return None

    @property
    def drafts(self) -> bool:
        """Whether the inverter uses requests' drafts."""
        return False

    @property
    def watches(self) -> bool:
        """Whether the inverter runs requests' watchers."""
        return False

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an output, on inverters with `watches`."""
        return frozenset()

    @cached_property
    def token_bytes(self) -> TokenBytes:
        """The bytes that each token adds to an output's text; computed on first access."""
        found = verified_token_bytes(self.tokenizer, self.vocab_size)
        if found.flaw is not None:
            _log.warning(
                "no output is stopped early and rewards are scored from decoded texts: %s",
                found.flaw,
            )
        return found

    @property
    def has_likelihoods(self) -> bool:
        """Whether `likelihoods` is supported."""
        return False

    @property
    def weights_version(self) -> int:
        """Changes whenever the weights do, so that results of older weights can be recognized."""
        return 0

    @abstractmethod
    def generate(
        self,
        requests: Sequence[InversionRequest],
        sampling: SamplingParams,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Inversion]:
        """Continue every prompt; returns one result per request, in the order of the requests.

        A result depends on its own request, the model and `sampling`, never on the other
        requests. A request that cannot be run gets finish_reason "error"; the others still run.

        Args:
            requests: any number of prompts, in any order and of any length.
            sampling: shared by all of them.
            on_progress: called from time to time with the number of requests done so far, last
                with len(requests).
        """

    @property
    def max_running(self) -> int:
        """Number of requests that run at a time, where known; any more would wait."""
        return 32

    @property
    def streams(self) -> bool:
        """Whether `start` and `step` are supported."""
        return False

    def start(
        self,
        requests: Sequence[InversionRequest],
        sampling: SamplingParams,
        on_end: Callable[[int, Inversion], None],
    ) -> Callable[[], None]:
        """Queue prompts for later calls of `step` to continue, alongside those already running.

        Args:
            requests: one or more.
            sampling: shared by all of them.
            on_end: called with a request's index and its result (as from `generate`, but without
                text) when it ends: by a thread that runs steps, or before this returns.

        Returns:
            A function that cancels the requests that have not ended. Any thread may call it;
            cancelled requests may still reach `on_end`.

        Raises:
            ConfigError: the backend does not support this.
        """
        raise ConfigError(f"{type(self).__name__} runs whole batches: use backend='native'")

    def step(self) -> None:
        """Advance all started requests, if any, by one step.

        Raises:
            ConfigError: the backend does not support this.
        """
        raise ConfigError(f"{type(self).__name__} runs whole batches: use backend='native'")

    def likelihoods(
        self,
        requests: Sequence[LikelihoodRequest],
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Likelihood]:
        """Probabilities of given tokens after prompts, in one pass each and without decoding.

        A result depends on its own request and the model alone. A request that cannot be run gets
        an error; the others still run.

        Args:
            requests: any number, in any order and of any length.
            on_progress: as for `generate`.

        Returns:
            One result per request, in the order of the requests.

        Raises:
            ConfigError: the backend does not support this.
        """
        raise ConfigError(
            f"{type(self).__name__} cannot tell how likely given tokens are: use backend='native'"
        )

    def decode(self, output_ids: Sequence[int]) -> str:
        """The text of output tokens, without special tokens."""
        text = self.tokenizer.decode(
            list(output_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def keep_prefix(self, token_ids: Sequence[int]) -> None:  # noqa: B027 - a hint, for some
        """Hint that prompts will start with these tokens, for backends that cache prefixes."""

    @abstractmethod
    def close(self) -> None:
        """Free the model's memory; the inverter cannot be used afterwards."""

    def __enter__(self) -> Inverter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def refusal(self, request: InversionRequest, sampling: SamplingParams) -> str | None:
        """The reason why a request cannot be run, with the offending numbers; None if it can."""
        ids, n_new = request.prompt_ids, sampling.max_new_tokens
        if not len(ids):
            return "the prompt is empty: it needs at least one token"
        return self._misfit(ids, n_new, f"{len(ids)} prompt tokens and {n_new} new tokens")

    def likelihood_refusal(self, request: LikelihoodRequest) -> str | None:
        """The same as `refusal`, for a request of `likelihoods`."""
        ids, targets = request.prompt_ids, request.target_ids
        for name, part in (("prompt", ids), ("target", targets)):
            if not len(part):
                return f"the {name} is empty: it needs at least one token"
        shown = f"{len(ids)} prompt tokens and {len(targets)} target tokens"
        return self._misfit([*ids, *targets], 0, shown)

    def _misfit(self, ids: Sequence[int], n_new: int, shown: str) -> str | None:
        outside = next((token_id for token_id in ids if not 0 <= token_id < self.vocab_size), None)
        if outside is not None:
            return f"token id {outside} is outside the model's vocabulary of {self.vocab_size}"
        if len(ids) + n_new > self.context_length:
            return f"{shown} do not fit the model's context of {self.context_length} tokens"
        return None
