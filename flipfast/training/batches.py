"""Packs training examples into rows: prompt, response and answer, as the inverter sees them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any

import torch

from flipfast.config import FlipConfig
from flipfast.prompts.rendering import PromptRenderer
from flipfast.prompts.templates import STYLES, get_template
from flipfast.training.data import Example, RealText, world_example
from flipfast.training.tokenizer import END, MAX_LENGTH
from flipfast.training.world import World

MAX_RESPONSE_TOKENS = 240
_ROWS, _TOKENS, _POOL = 13, 320, 24
# The model first learns to copy, on short texts; then real pairs join, and at the end they dominate
# because real instructions hardly ever read like pseudo-instructions.
EARLY, LATE = 0.2, 0.7  # shares of the run
_SOURCES = ("world", "pseudo", "pair")
_EARLY_MIX, _MIX, _LATE_MIX = (0.7, 0.3, 0.0), (0.25, 0.25, 0.5), (0.3, 0.05, 0.65)
_STYLE_WEIGHTS = {"standalone": 1, "conversation": 1, "direct": 8}
_PROMPT_WEIGHT = 0.2  # also learn to model the response, not only to invert it


@dataclass(frozen=True)
class Batch:
    """Packed rows, each tensor (rows, tokens).

    Attributes:
        ids: token ids.
        weights: each token's weight in the loss.
        positions: within the token's own example.
        documents: number of the example, -1 for padding; tokens attend only to their own example.
    """

    ids: torch.Tensor
    weights: torch.Tensor
    positions: torch.Tensor
    documents: torch.Tensor


class Batches:
    """Draws batches whose mix of sources depends on the run's progress, 0 to 1.

    Args:
        tokenizer: the inverter's tokenizer.
        world: the closed world to draw from.
        real: real pairs, or None for the closed world alone.
        rng: the source of every choice.
    """

    def __init__(self, tokenizer: Any, world: World, real: RealText | None, rng: Random) -> None:
        self._world, self._real, self._rng = world, real, rng
        self._tokenizer = tokenizer
        self._renderers = {
            style: PromptRenderer(
                tokenizer,
                get_template(style),
                date=FlipConfig.prompt_date,
                thinking=False,
                max_prompt_tokens=MAX_LENGTH,
                max_response_tokens=MAX_RESPONSE_TOKENS,
            )
            for style in STYLES
        }
        self._n_template = {s: len(r.render("").token_ids) for s, r in self._renderers.items()}
        self._pool: list[tuple[list[int], list[float]]] = []

    def draw(self, progress: float) -> Batch:
        """Return the next batch."""
        columns = zip(*(self._row(progress) for _ in range(_ROWS)), strict=True)
        return Batch(*(torch.tensor(column) for column in columns))

    def _row(self, progress: float) -> tuple[list[int], list[float], list[int], list[int]]:
        ids: list[int] = []
        weights: list[float] = []
        positions: list[int] = []
        documents: list[int] = []
        while example := self._take(_TOKENS - len(ids), progress):
            documents += [len(ids)] * len(example[0])
            positions += range(len(example[0]))
            ids += example[0]
            weights += example[1]
        padding = _TOKENS - len(ids)
        zeros = [0] * padding
        return ids + zeros, weights + [0.0] * padding, positions + zeros, documents + [-1] * padding

    def _take(self, room: int, progress: float) -> tuple[list[int], list[float]] | None:
        """Take the longest waiting example that fits, or the oldest one if the row is empty.

        Always taking the longest would postpone short examples forever.
        """
        while len(self._pool) < _POOL:
            self._pool.append(self._encoded(progress))
        if room == _TOKENS:
            return self._pool.pop(0)
        fitting = [i for i, (ids, _) in enumerate(self._pool) if len(ids) <= room]
        if not fitting:
            return None
        return self._pool.pop(max(fitting, key=lambda i: len(self._pool[i][0])))

    def _encoded(self, progress: float) -> tuple[list[int], list[float]]:
        """Return token ids and loss weights of one example that fits a row."""
        while True:
            example = self._example(progress)
            style = self._rng.choices([*_STYLE_WEIGHTS], [*_STYLE_WEIGHTS.values()])[0]
            answer = example.target
            if style != "direct":
                pair = {"REASONING": example.reasoning, "INFERRED INSTRUCTION": example.target}
                answer = json.dumps(pair, ensure_ascii=False)
            prompt = self._renderers[style].render(example.response).token_ids
            target = self._tokenizer.encode(answer + END)
            if len(prompt) + len(target) <= _TOKENS:
                fixed = [0.0] * self._n_template[style]  # nothing to learn in the template
                read = [_PROMPT_WEIGHT] * (len(prompt) - len(fixed))
                return prompt + target, fixed + read + [1.0] * len(target)

    def _example(self, progress: float) -> Example:
        if self._real is None:
            return world_example(self._world, self._rng)
        mix = _EARLY_MIX if progress < EARLY else _MIX if progress < LATE else _LATE_MIX
        source = self._rng.choices(_SOURCES, mix)[0]
        if source == "world":
            return world_example(self._world, self._rng)
        if source == "pair":
            return self._real.pair(self._rng, max_words=60)
        longest = 50 if progress < EARLY else 170
        return self._real.pseudo(self._rng, max_words=self._rng.randrange(12, longest))
