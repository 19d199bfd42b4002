"""Counters of what an engine has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineCounters:
    """Totals since the engine was made.

    Attributes:
        steps: model passes.
        sampling_passes: model passes that gave a sequence output tokens, summed over sequences.
        prompt_tokens: of all admitted prompts; a preempted one counts again.
        prefix_tokens: of these, taken from the prefix cache.
        copied_pages: cached pages that held the rest of a prompt, or of a pinned prefix, and were
            copied.
        computed_tokens: rows of all passes.
        output_tokens: tokens sampled.
        scored_tokens: target tokens whose probabilities were computed.
        drafted_tokens: draft tokens that were run.
        accepted_tokens: of these, accepted.
        preemptions: times that a sequence lost its pages and had to be computed again.
        evictions: cached prefix pages evicted for others.
        failed_steps: steps that raised an error.
        peak_pages: maximum number of pages held at a time.
        pages: number of pages that sequences can hold.
    """

    steps: int
    sampling_passes: int
    prompt_tokens: int
    prefix_tokens: int
    copied_pages: int
    computed_tokens: int
    output_tokens: int
    scored_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    preemptions: int
    evictions: int
    failed_steps: int
    peak_pages: int
    pages: int
