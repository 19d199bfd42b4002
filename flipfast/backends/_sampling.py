"""Logits processors: sampling that depends on its own request alone, and a check for NaN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    LogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from flipfast.engine.sampling import SamplingParams, uniform


class SeededSampler(LogitsProcessor):
    """Turns an arg-max loop into sampling with a separate random stream for every row.

    Each step draws one token per row by inversion: the first token whose cumulative probability
    exceeds a uniform number (Devroye, "Non-Uniform Random Variate Generation", 1986, III.2). The
    number depends on the row's seed and the step alone, not on other rows, their order or torch's
    generators.

    Args:
        seeds: one integer per row.
        sampling: temperature above 0; top-k, then top-p, as transformers applies them.
    """

    def __init__(self, seeds: Sequence[int], sampling: SamplingParams) -> None:
        self._seeds = seeds
        self._step = 0
        self._warpers: list[Any] = [TemperatureLogitsWarper(sampling.temperature)]
        if sampling.top_k > 0:
            self._warpers.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1.0:
            self._warpers.append(TopPLogitsWarper(sampling.top_p))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Map scores, (rows, vocabulary) float32, to 0 at the drawn token and -inf elsewhere."""
        # With the best score at 0, its distance to the next stays exact at any temperature.
        warped = scores - scores.amax(-1, keepdim=True)
        for warper in self._warpers:
            warped = warper(input_ids, warped)
        cumulative = warped.double().softmax(-1).cumsum(-1)
        draws = [uniform(seed, self._step) for seed in self._seeds]
        draw = torch.tensor(draws, dtype=torch.float64, device=scores.device)[:, None]
        # right=True skips tokens of probability 0; the clamp is for rows of NaN.
        tokens = torch.searchsorted(cumulative, draw * cumulative[:, -1:], right=True)
        tokens = tokens.clamp(max=scores.shape[-1] - 1)
        self._step += 1
        return torch.full_like(scores, float("-inf")).scatter(-1, tokens, 0.0)


class LogitsWatch(LogitsProcessor):
    """Records the first step at which a row has no usable logits (NaN, overflow, all masked).

    Attributes:
        first_bad: (rows,) int64, that step, or -1 if there was none.
    """

    def __init__(self, n_rows: int, device: torch.device) -> None:
        self.first_bad = torch.full((n_rows,), -1, device=device)
        self._step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores, (rows, vocabulary), unchanged."""
        bad = ~scores.amax(-1).isfinite() & (self.first_bad < 0)
        self.first_bad.masked_fill_(bad, self._step)
        self._step += 1
        return scores
