"""Sampling against transformers' own warpers, and against the distribution it has to follow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from flipfast.engine.ops.torch_ops import TorchOps
from flipfast.engine.sampler import BAD_LOGITS, _keep_top, draw_arrays, draws_of, penalize, sample
from flipfast.engine.sampling import SamplingParams, uniform
from flipfast.engine.sequence import Sequence
from flipfast.engine.step_plan import Chunk
from flipfast.engine.transfer import send

OPS = TorchOps(torch.device("cpu"), torch.float32)
VOCAB = 97
SETTINGS = [
    (0.0, 1.0, 0),
    (1.0, 1.0, 0),
    (0.7, 0.9, 0),
    (1.5, 1.0, 5),
    (0.9, 0.5, 20),
    (1.0, 1e-9, 0),
    (1.0, 1.0, 1),
    (1.0, 0.8, 500),
]


def rows(n: int) -> tuple[torch.Tensor, list[Sequence]]:
    """Logits and sequences, of all settings by turns, at all kinds of positions."""
    logits = torch.randn(n, VOCAB, generator=torch.Generator().manual_seed(1)) * 3
    sequences = []
    for i in range(n):
        temperature, top_p, top_k = SETTINGS[i % len(SETTINGS)]
        params = SamplingParams(100, temperature=temperature, top_p=top_p, top_k=top_k)
        sequences.append(Sequence([5], params, seed=1000 + i, n_sampled=1 + i % 7))
    return logits, sequences


def draw(logits: torch.Tensor, sequences: list[Sequence]) -> torch.Tensor:
    chunks = [Chunk(sequence, 0, 1, samples=True, epoch=0) for sequence in sequences]
    arrays = draw_arrays(chunks)
    draws = draws_of(arrays, send(arrays, logits.device))
    return sample(logits, OPS.argmax(logits), draws)


def expected(logits: torch.Tensor, sequence: Sequence) -> int:
    """One row by transformers' warpers and a plain walk through the probabilities."""
    params = sequence.sampling
    if params.temperature == 0:
        return int(logits.argmax())
    scores = TemperatureLogitsWarper(params.temperature)(None, (logits - logits.max())[None])
    if params.top_k:
        scores = TopKLogitsWarper(params.top_k)(None, scores)
    if params.top_p < 1:
        scores = TopPLogitsWarper(params.top_p)(None, scores)
    left = uniform(sequence.seed, sequence.n_sampled - 1)
    for token, p in enumerate(scores[0].double().softmax(-1).tolist()):
        left -= p
        assert abs(left) > 1e-6 or p == 0, "a draw between two tokens: take other seeds"
        if left < 0:
            return token
    raise AssertionError("the probabilities do not reach 1")


def test_every_row_follows_its_own_settings() -> None:
    logits, sequences = rows(200)
    tokens = draw(logits, sequences)
    assert tokens.tolist() == [expected(logits[i], s) for i, s in enumerate(sequences)]


@pytest.mark.parametrize("n", [1, 5, 16, 17, 33])
def test_neighbours_have_no_say(n: int) -> None:
    logits, sequences = rows(64)
    whole = draw(logits, sequences)
    for start in range(0, 64 - n, n):
        part = draw(logits[start : start + n], sequences[start : start + n])
        assert torch.equal(part, whole[start : start + n])


class Sorted(TorchDispatchMode):
    """Counts the rows that are sorted, in full or for their largest."""

    n_rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name().partition(".")[0] in ("aten::sort", "aten::topk", "aten::kthvalue"):
            self.n_rows += len(args[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("cut", "n_sorted"), [({}, 0), ({"top_k": 5}, 16), ({"top_p": 0.9}, 16)])
def test_only_rows_beside_a_cut_are_sorted(cut: dict[str, Any], n_sorted: int) -> None:
    """Sorting the vocabulary takes long: of 40 rows, a tile of 16 at most for one that is cut."""
    logits, _ = rows(40)
    plain, other = SamplingParams(9, temperature=0.7), SamplingParams(9, temperature=0.7, **cut)
    sequences = [Sequence([5], other if i == 20 else plain, n_sampled=1) for i in range(40)]
    with Sorted() as found:
        draw(logits, sequences)
    assert found.n_rows == n_sorted


def test_a_cut_leaves_the_bits_of_other_rows() -> None:
    """Not only their tokens, which a small difference hardly changes."""
    scores, _ = rows(16)
    scores[3, :50] = float("-inf")
    scores[4, :50] = -200.0  # so unlikely that float32 takes it for impossible
    top_k, top_p = torch.zeros(16, 1, dtype=torch.int64), torch.ones(16, 1)
    top_k[5], top_p[9] = 2, 0.5
    kept = _keep_top(scores, top_k, top_p)
    changed = (kept.view(torch.int32) != scores.view(torch.int32)).any(-1)
    assert changed.nonzero().flatten().tolist() == [5, 9]


@pytest.mark.slow
def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, float("-inf")])
    n = 20_000
    params = SamplingParams(n, temperature=1.3)
    sequences = [Sequence([1], params, seed=9, n_sampled=1 + i) for i in range(n)]
    counts = draw(logits.repeat(n, 1), sequences).bincount(minlength=5).double()
    probabilities = (logits / 1.3).double().softmax(-1)
    assert counts[4] == 0
    chi_square = ((counts - n * probabilities) ** 2 / (n * probabilities))[:4].sum()
    assert chi_square < 16.27  # 3 degrees of freedom, one in a thousand


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_bad_logits_have_no_token(bad: float, temperature: float) -> None:
    logits, _ = rows(3)
    logits[1, 40] = bad
    sequences = [Sequence([5], SamplingParams(4, temperature=temperature), n_sampled=1)] * 3
    tokens = draw(logits, sequences)
    assert tokens[1] == BAD_LOGITS
    assert (tokens[[0, 2]] >= 0).all()
    logits[1] = float("-inf")
    assert draw(logits, sequences)[1] == BAD_LOGITS


def test_the_penalty_is_transformers_own() -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    logits, _ = rows(4)
    ids = torch.tensor([[3, 4, 4, 9], [0, 1, 2, 3], [96, 95, 0, 0], [7, 7, 7, 7]])
    seen = torch.zeros(4, VOCAB, dtype=torch.bool).scatter(1, ids, True)
    expected_logits = RepetitionPenaltyLogitsProcessor(1.3)(ids, logits.clone())
    penalize(logits, seen, 1.3)
    assert torch.equal(logits, expected_logits)
