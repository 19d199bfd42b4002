"""From logits to output tokens."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import torch

from flipfast.engine.batch import to_device
from flipfast.engine.sequence import Sequence
from flipfast.sampling import uniform

BAD_LOGITS = -1  # in place of a token, where a row's logits are not finite
_TILE = 16  # rows drawn at a time
_BYTES_A_NUMBER = 64  # of a tile: sorted scores, their order, sums in float64


@dataclass(frozen=True)
class Draws:
    """What the sampled rows of a step need; a greedy row has no part in it.

    Attributes:
        rows: (n,) int64, rows of the logits.
        temperature, top_p: (n, 1) float32.
        top_k: (n, 1) int64, 0 for all tokens.
        uniform: (n, 1) float64, in [0, 1).
    """

    rows: torch.Tensor
    temperature: torch.Tensor
    top_p: torch.Tensor
    top_k: torch.Tensor
    uniform: torch.Tensor


def prepare_draws(sequences: SequenceOf[Sequence], device: torch.device) -> Draws | None:
    """The draws of a step's output tokens, already counted in n_sampled; None if all are greedy."""
    rows = [i for i, sequence in enumerate(sequences) if sequence.sampling.temperature > 0]
    if not rows:
        return None
    drawn = [sequences[i] for i in rows]
    params = [sequence.sampling for sequence in drawn]
    numbers = [uniform(s.seed, s.n_sampled - 1) for s in drawn]

    def column(values: list[float] | list[int], dtype: torch.dtype) -> torch.Tensor:
        return to_device(torch.tensor(values, dtype=dtype)[:, None], device)

    return Draws(
        rows=to_device(torch.tensor(rows), device),
        temperature=column([p.temperature for p in params], torch.float32),
        top_p=column([p.top_p for p in params], torch.float32),
        top_k=column([p.top_k for p in params], torch.int64),
        uniform=column(numbers, torch.float64),
    )


def sample(logits: torch.Tensor, best: torch.Tensor, draws: Draws | None) -> torch.Tensor:
    """Output tokens of a step.

    Args:
        logits: (n, vocabulary) float32.
        best: (n,) int64, the arg-max of each row, BAD_LOGITS where there is none.
        draws: of the rows that are not greedy.

    Returns:
        (n,) int64, BAD_LOGITS for a row without usable logits.
    """
    if draws is None:
        return best
    tokens = best.clone()
    # A CUDA scan's order of sums follows the number of rows: always giving it as many, the last
    # row again where there are fewer, keeps the bits of a row its own.
    for start in range(0, len(draws.rows), _TILE):
        rows = torch.arange(start, start + _TILE, device=logits.device)
        rows = rows.clamp(max=len(draws.rows) - 1)
        drawn = _draw(logits[draws.rows[rows]], draws, rows)
        tokens[draws.rows[rows]] = drawn
    return torch.where(best == BAD_LOGITS, best, tokens)


def sampling_bytes(vocab_size: int) -> int:
    """Memory that `sample` needs at most, in bytes."""
    return _TILE * vocab_size * _BYTES_A_NUMBER


def penalize(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> None:
    """Make tokens that a row has seen less likely, in place (Keskar et al. 2019, CTRL).

    Args:
        logits: (n, vocabulary) float32.
        seen: (n, vocabulary) bool.
        penalty: above 1 makes them less likely.
    """
    scaled = torch.where(logits < 0, logits * penalty, logits / penalty)
    torch.where(seen, scaled, logits, out=logits)


def _draw(logits: torch.Tensor, draws: Draws, rows: torch.Tensor) -> torch.Tensor:
    """One token a row by inversion (Devroye 1986, III.2): the first whose cumulative probability
    exceeds the row's uniform number, in the order of the vocabulary."""
    # The best token at 0 keeps its distance to the next exact at any temperature.
    scores = logits - logits.amax(-1, keepdim=True)
    scores = scores / draws.temperature[rows]
    scores = _keep_top(scores, draws.top_k[rows], draws.top_p[rows])
    cumulative = scores.double().softmax(-1).cumsum(-1)
    # right=True passes over tokens of probability 0; the clamp is for rows of NaN.
    threshold = draws.uniform[rows] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, threshold, right=True)
    return tokens[:, 0].clamp(max=logits.shape[-1] - 1)


def _keep_top(scores: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Scores with -inf outside the top k, and then outside the nucleus (Holtzman et al. 2020)."""
    ascending, order = scores.sort(stable=True)
    size = scores.shape[-1]
    # The k-th best score stays, with all that equal it.
    least = ascending.gather(-1, (size - top_k.clamp(max=size)) % size)
    cut = (ascending < least) & (top_k > 0)
    ascending = ascending.masked_fill(cut, float("-inf"))
    below = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
    below[:, -1] = False  # the best one always stays
    dropped = cut | (below & (top_p < 1))
    return scores.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), float("-inf"))
