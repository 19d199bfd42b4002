"""Selects output tokens from logits."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import numpy as np
import torch

from flipfast.engine.sampling import uniform
from flipfast.engine.step_plan import Chunk
from flipfast.engine.transfer import Array

BAD_LOGITS = -1  # replaces the token of a row whose logits are not finite
_TILE = 16  # rows drawn at a time
_BYTES_A_NUMBER = 64  # per logit of a tile: sorted scores, their order, sums in float64


@dataclass(frozen=True)
class Draws:
    """Sampling parameters of those rows of the logits that are not greedy.

    Attributes:
        places: which rows of the logits, in ascending order.
        cuts: of each, whether top_p or top_k cuts anything off.
        rows: (n,) int64, the places on the device.
        temperature, top_p: (n, 1) float32.
        top_k: (n, 1) int64, 0 for all tokens.
        uniform: (n, 1) float64, in [0, 1).
    """

    places: list[int]
    cuts: list[bool]
    rows: torch.Tensor
    temperature: torch.Tensor
    top_p: torch.Tensor
    top_k: torch.Tensor
    uniform: torch.Tensor

    def within(self, start: int, end: int) -> Draws | None:
        """The draws of rows start to end (exclusive), numbered from start; None without any."""
        few = slice(bisect_left(self.places, start), bisect_left(self.places, end))
        places = [place - start for place in self.places[few]]
        return (
            Draws(
                places,
                self.cuts[few],
                self.rows[few] - start,
                self.temperature[few],
                self.top_p[few],
                self.top_k[few],
                self.uniform[few],
            )
            if places
            else None
        )


def draw_arrays(chunks: SequenceOf[Chunk]) -> dict[str, Array]:
    """The arrays of a step's `Draws`; empty if all of its output tokens are greedy.

    A token after a draft is drawn with the same random number that it would have without the
    draft. A drafted token is thus accepted with the probability that the model gives it, as
    rejection sampling requires (Leviathan et al. 2023), and drafts never change the output.

    Args:
        chunks: those that sample, with their first output token counted in n_sampled.
    """
    if all(chunk.sequence.sampling.temperature == 0 for chunk in chunks):
        return {}
    drawn = []
    row = 0
    for chunk in chunks:
        sequence, n_rows = chunk.sequence, 1 + len(chunk.draft)
        if sequence.sampling.temperature > 0:
            drawn += [(row + i, sequence, sequence.n_sampled - 1 + i) for i in range(n_rows)]
        row += n_rows
    params = [sequence.sampling for _, sequence, _ in drawn]
    numbers = [uniform(sequence.seed, position) for _, sequence, position in drawn]
    return {
        "rows": np.array([row for row, _, _ in drawn]),
        "temperature": np.array([[p.temperature] for p in params], dtype=np.float32),
        "top_p": np.array([[p.top_p] for p in params], dtype=np.float32),
        "top_k": np.array([[p.top_k] for p in params]),
        "uniform": np.array(numbers)[:, None],
    }


def draws_of(arrays: Mapping[str, Array], tensors: Mapping[str, torch.Tensor]) -> Draws | None:
    """The draws of `draw_arrays`, with the same on the device of the logits; None without any."""
    if "rows" not in arrays:
        return None
    cuts = (arrays["top_p"] < 1) | (arrays["top_k"] > 0)
    return Draws(
        places=arrays["rows"].tolist(),
        cuts=cuts[:, 0].tolist(),
        rows=tensors["rows"],
        temperature=tensors["temperature"],
        top_p=tensors["top_p"],
        top_k=tensors["top_k"],
        uniform=tensors["uniform"],
    )


def sample(logits: torch.Tensor, best: torch.Tensor, draws: Draws | None) -> torch.Tensor:
    """Choose the next token after each row of logits.

    Args:
        logits: (n, vocabulary) float32.
        best: (n,) int64, the arg-max of each row, BAD_LOGITS where there is none.
        draws: of the rows that are not greedy; None if all are greedy.

    Returns:
        (n,) int64, BAD_LOGITS for a row without usable logits.
    """
    if draws is None:
        return best
    tokens = best.clone()
    # The summation order of a CUDA scan depends on the number of rows. Tiles of a fixed size,
    # filled up by repeating the last row, keep a row's bits independent of the batch.
    for start in range(0, len(draws.rows), _TILE):
        rows = torch.arange(start, start + _TILE, device=logits.device)
        rows = rows.clamp(max=len(draws.rows) - 1)
        # Cutting sorts, which takes longer than a small model's whole pass.
        cuts = any(draws.cuts[start : start + _TILE])
        drawn = _draw(logits[draws.rows[rows]], draws, rows, cuts=cuts)
        tokens[draws.rows[rows]] = drawn
    return torch.where(best == BAD_LOGITS, best, tokens)


def sampling_bytes(vocab_size: int) -> int:
    """Maximum memory that `sample` needs, in bytes."""
    return _TILE * vocab_size * _BYTES_A_NUMBER


def penalize(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> None:
    """Apply a repetition penalty to seen tokens, in place (Keskar et al. 2019, CTRL).

    Args:
        logits: (n, vocabulary) float32.
        seen: (n, vocabulary) bool.
        penalty: above 1 makes seen tokens less likely.
    """
    scaled = torch.where(logits < 0, logits * penalty, logits / penalty)
    torch.where(seen, scaled, logits, out=logits)


def _draw(logits: torch.Tensor, draws: Draws, rows: torch.Tensor, *, cuts: bool) -> torch.Tensor:
    """Draw one token per row by inversion (Devroye 1986, III.2), after cuts if there are any.

    It is the first token, in vocabulary order, whose cumulative probability exceeds the row's
    uniform number.
    """
    # With the best score at 0, its distance to the next stays exact at any temperature.
    scores = logits - logits.amax(-1, keepdim=True)
    scores = scores / draws.temperature[rows]
    if cuts:
        scores = _keep_top(scores, draws.top_k[rows], draws.top_p[rows])
    cumulative = scores.double().softmax(-1).cumsum(-1)
    # right=True skips tokens of probability 0; the clamp is for rows of NaN.
    threshold = draws.uniform[rows] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, threshold, right=True)
    return tokens[:, 0].clamp(max=logits.shape[-1] - 1)


def _keep_top(scores: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Set scores to -inf outside the top k, then outside the nucleus (Holtzman et al. 2020)."""
    ascending, order = scores.sort(stable=True)
    size = scores.shape[-1]
    # The k-th best score stays, along with its ties.
    least = ascending.gather(-1, (size - top_k.clamp(max=size)) % size)
    cut = (ascending < least) & (top_k > 0)
    ascending = ascending.masked_fill(cut, float("-inf"))
    below = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
    below[:, -1] = False  # the best token always stays
    dropped = cut | (below & (top_p < 1))
    return scores.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), float("-inf"))
