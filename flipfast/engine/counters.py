"""What an engine has done so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineCounters:
    """Totals since the engine was made.

    Attributes:
        steps: model passes.
        sampling_passes: of these, summed over the sequences that took part and got output tokens.
        prompt_tokens: of all admitted prompts; a preempted one counts again.
        prefix_tokens: of these, taken from the prefix cache.
        copied_pages: cached pages that held the rest of a prompt and were copied.
        computed_tokens: rows of all passes.
        output_tokens: sampled.
        scored_tokens: whose probabilities were asked for, and found.
        drafted_tokens: run in case they would be sampled.
        accepted_tokens: of these, sampled indeed.
        preemptions: sequences that lost their pages and were computed again.
        evictions: cached prefix pages given up for others.
        failed_steps: steps that raised and were tried again in smaller parts.
        peak_pages: most pages held at a time.
        pages: pages there are.
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
