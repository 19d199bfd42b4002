"""Converts requests to sequences of the native engine, and finished sequences to results."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

import torch

from flipfast.backends.base import (
    Inversion,
    InversionRequest,
    Inverter,
    Likelihood,
    LikelihoodRequest,
    SamplingParams,
)
from flipfast.engine.sequence import Sequence

Case = str | Sequence  # a request as a sequence, or the reason why it cannot be run


def sequences_for(
    inverter: Inverter,
    requests: SequenceOf[InversionRequest],
    sampling: SamplingParams,
    tokens: torch.Tensor | None = None,
) -> list[Case]:
    """One case per request, in the same order.

    Args:
        inverter: decides which requests it cannot run.
        requests: prompts to continue.
        sampling: shared by all of them.
        tokens: (requests, max_new_tokens) int32, one row per request for its output tokens; None
            keeps them on the host only.
    """
    return [
        inverter.refusal(request, sampling)
        or Sequence(
            list(request.prompt_ids),
            sampling,
            request.seed,
            request.drafts,
            request.watcher,
            output_row=None if tokens is None else tokens[i],
        )
        for i, request in enumerate(requests)
    ]


def scoring_sequences_for(
    inverter: Inverter, requests: SequenceOf[LikelihoodRequest]
) -> list[Case]:
    """The same for requests that ask for the probabilities of given tokens."""
    return [
        inverter.likelihood_refusal(request)
        or Sequence.scoring(request.prompt_ids, request.target_ids)
        for request in requests
    ]


def inversion_of(case: Case) -> Inversion:
    """The result of a request to continue a prompt."""
    error = _error(case)
    if error is not None:
        return Inversion.failed(error)
    assert isinstance(case, Sequence)
    return Inversion(case.output_ids, None, case.finish_reason or "length")


def likelihood_of(case: Case) -> Likelihood:
    """The result of a request for probabilities."""
    error = _error(case)
    if error is not None:
        return Likelihood([], [], error)
    assert isinstance(case, Sequence)
    return Likelihood(case.log_probs, case.best_ids)


def _error(case: Case) -> str | None:
    """The reason why a request has no result; None if it has one."""
    if isinstance(case, str):
        return case
    if case.finish_reason == "cancelled":
        return "the request was cancelled: the engine was closed meanwhile"
    if case.finish_reason == "error":
        return case.error or "the engine gave no reason"
    return None
