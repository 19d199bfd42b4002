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
            stands for the output's start. They change how fast a result comes, never the result.
        watcher: sees the output grow, on inverters that have `watches`.
    """

    prompt_ids: Sequence[int]
    seed: int = 0
    drafts: tuple[Sequence[int], ...] = ()
    watcher: Watcher | None = None


@dataclass(frozen=True)
class Inversion:
    """What the model wrote for one request.

    Args:
        output_ids: the new token ids, without the end token.
        text: the same, decoded, special tokens left out; None where the caller wanted none.
        finish_reason: "stop" (the model ended, or a watcher for it), "length" (max_new_tokens
            reached), "pruned" (a watcher had no use for the rest) or "error".
        error: what went wrong, only where finish_reason is "error".
    """

    output_ids: list[int]
    text: str | None
    finish_reason: str
    error: str | None = None

    @classmethod
    def failed(cls, error: str) -> Inversion:
        """The result of a request that could not be run, and why."""
        return cls([], "", "error", error)


@dataclass(frozen=True)
class LikelihoodRequest:
    """Tokens behind a prompt, of which the probability is wanted.

    Args:
        prompt_ids: token ids of the whole prompt, special tokens included.
        target_ids: token ids of what follows it, at least one.
    """

    prompt_ids: Sequence[int]
    target_ids: Sequence[int]


@dataclass(frozen=True)
class Likelihood:
    """What the model thinks of a request's target tokens, each behind those before it.

    Args:
        logprobs: natural logarithms of their probabilities; no temperature and no penalty plays a
            part in them.
        best_ids: the likeliest token in the place of each.
        error: what went wrong, the lists are then empty; else None.
    """

    logprobs: list[float]
    best_ids: list[int]
    error: str | None = None


class Inverter(ABC):
    """A language model that continues prompts; every engine implements this class.

    A backend is one file in this folder with a `load(model, **options) -> Inverter`.

    Attributes:
        tokenizer: the model's own tokenizer, with its chat template.
        context_length: most tokens that prompt and output may have together.
        vocab_size: token ids run from 0 to this, exclusive.
    """

    tokenizer: PreTrainedTokenizerBase
    context_length: int
    vocab_size: int

    @property
    def token_device(self) -> torch.device | None:
        """A device that can keep output tokens for whoever scores them there; None for none."""
        return None

    @property
    def drafts(self) -> bool:
        """Whether requests' drafts are of use."""
        return False

    @property
    def watches(self) -> bool:
        """Whether requests' watchers are heeded."""
        return False

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an output, on inverters that have `watches`."""
        return frozenset()

    @cached_property
    def token_bytes(self) -> TokenBytes:
        """What each token adds to an output's text; worked out when it is first asked for."""
        found = verified_token_bytes(self.tokenizer, self.vocab_size)
        if found.flaw is not None:
            _log.warning(
                "no output is stopped early and rewards are scored from decoded texts: %s",
                found.flaw,
            )
        return found

    @property
    def has_likelihoods(self) -> bool:
        """Whether `likelihoods` is there."""
        return False

    @property
    def weights_version(self) -> int:
        """Changes when the weights do: results of another version are those of another model."""
        return 0

    @abstractmethod
    def generate(
        self,
        requests: Sequence[InversionRequest],
        sampling: SamplingParams,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Inversion]:
        """Continue every prompt; one result a request, in the order of the requests.

        A result depends on its own request, the model and `sampling`, never on the other
        requests. A request that cannot be run gets finish_reason "error"; the others still run.

        Args:
            requests: any number of prompts, in any order and of any length.
            sampling: shared by all of them.
            on_progress: called now and then with how many requests are done so far, with
                len(requests) at the end.
        """

    @property
    def max_running(self) -> int:
        """Requests that run at a time, where it can be known: more only wait."""
        return 32

    @property
    def streams(self) -> bool:
        """Whether `start` and `step` are there."""
        return False

    def start(
        self,
        requests: Sequence[InversionRequest],
        sampling: SamplingParams,
        on_end: Callable[[int, Inversion], None],
    ) -> Callable[[], None]:
        """Have prompts continued by the coming calls of `step`, beside those under way.

        Args:
            requests: one or more.
            sampling: shared by all of them.
            on_end: called with a request's place and its result, as for `generate` but without a
                text, when it has one: by a thread that runs steps, or before this returns.

        Returns:
            Drops those that have not ended; any thread may call it, `on_end` may come once more.
        """
        raise ConfigError(f"{type(self).__name__} runs whole batches: use backend='native'")

    def step(self) -> None:
        """Go on with all that has been started by one step, if there is any."""
        raise ConfigError(f"{type(self).__name__} runs whole batches: use backend='native'")

    def likelihoods(
        self,
        requests: Sequence[LikelihoodRequest],
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Likelihood]:
        """How likely given tokens are behind prompts, in one pass each and without decoding.

        A result depends on its own request and the model. A request that cannot be run gets an
        error; the others still run.

        Args:
            requests: any number, in any order and of any length.
            on_progress: as for `generate`.

        Returns:
            One result a request, in the order of the requests.

        Raises:
            ConfigError: the backend has no such thing.
        """
        raise ConfigError(
            f"{type(self).__name__} cannot tell how likely given tokens are: use backend='native'"
        )

    def decode(self, output_ids: Sequence[int]) -> str:
        """The text of output tokens, special tokens left out."""
        text = self.tokenizer.decode(
            list(output_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def keep_prefix(self, token_ids: Sequence[int]) -> None:  # noqa: B027 - a hint, for some
        """Hint that prompts will start with these tokens, for backends that cache prefixes."""

    @abstractmethod
    def close(self) -> None:
        """Give the model's memory back; the inverter cannot be used afterwards."""

    def __enter__(self) -> Inverter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def refusal(self, request: InversionRequest, sampling: SamplingParams) -> str | None:
        """Why a request cannot be run, with the offending numbers; None if it can."""
        ids, n_new = request.prompt_ids, sampling.max_new_tokens
        if not len(ids):
            return "the prompt is empty: it needs at least one token"
        return self._misfit(ids, n_new, f"{len(ids)} prompt tokens and {n_new} new tokens")

    def likelihood_refusal(self, request: LikelihoodRequest) -> str | None:
        """Why a request of `likelihoods` cannot be run, with the numbers; None if it can."""
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
