"""Seeded sampling: the distribution, the filters, and what a draw depends on."""

from __future__ import annotations

import pytest
import torch

from flipfast.backends import _sampling
from flipfast.backends._sampling import LogitsWatch, SeededSampler, uniform
from flipfast.backends.base import SamplingParams

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0, 1.7, float("-inf")])
N = 20_000


def draws(sampling: SamplingParams, steps: int = 1, seeds: range = range(N)) -> torch.Tensor:
    """Tokens drawn from LOGITS, (rows, steps)."""
    sampler = SeededSampler(seeds, sampling)
    scores = LOGITS.repeat(len(seeds), 1)
    ids = torch.zeros(len(seeds), 1, dtype=torch.long)
    return torch.stack([sampler(ids, scores).argmax(-1) for _ in range(steps)], dim=1)


def chi_square(tokens: torch.Tensor, probabilities: torch.Tensor) -> float:
    counts = torch.bincount(tokens.flatten(), minlength=len(probabilities))
    assert counts[probabilities == 0].sum() == 0
    possible = probabilities > 0
    expected = probabilities[possible] * tokens.numel()
    return float(((counts[possible] - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_samples_follow_the_softmax(temperature: float) -> None:
    probabilities = (LOGITS.double() / temperature).softmax(-1)
    statistic = chi_square(draws(SamplingParams(1, temperature)), probabilities)
    assert statistic < 27.9  # 99.99 % point of chi-square with 6 degrees of freedom


@pytest.mark.slow
def test_steps_of_one_seed_follow_the_softmax() -> None:
    tokens = draws(SamplingParams(1, 1.0), steps=N // 4, seeds=range(7, 11))
    assert chi_square(tokens, LOGITS.double().softmax(-1)) < 27.9


def test_pairs_of_steps_are_independent() -> None:
    first, second = draws(SamplingParams(1, 1.0), steps=2).unbind(1)
    single = LOGITS.double().softmax(-1)
    pairs = torch.outer(single, single).flatten()
    assert chi_square(first * len(LOGITS) + second, pairs) < 87.0  # 99.99 %, 48 degrees


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"top_k": 3}, [0, 1, 6]),
        ({"top_k": 99}, [0, 1, 2, 3, 4, 5, 6]),
        ({"top_p": 0.6}, [0, 6]),
        ({"top_k": 3, "top_p": 0.5}, [0, 6]),
    ],
)
def test_filters_keep_the_likeliest(options: dict[str, float], kept: list[int]) -> None:
    mask = torch.full_like(LOGITS, float("-inf"))
    mask[kept] = 0.0
    tokens = draws(SamplingParams(1, 1.0, **options))  # type: ignore[arg-type]
    assert sorted(set(tokens.flatten().tolist())) == kept
    assert chi_square(tokens, (LOGITS + mask).double().softmax(-1)) < 27.9


@pytest.mark.parametrize("temperature", [1e-3, 1e-30])
def test_a_low_temperature_is_greedy_in_the_limit(temperature: float) -> None:
    assert set(draws(SamplingParams(1, temperature)).flatten().tolist()) == {0}


def test_large_logits_keep_their_distances() -> None:
    sampler = SeededSampler(range(N), SamplingParams(1, 0.003))
    scores = torch.tensor([30000.0, 29999.99]).repeat(N, 1)
    tokens = sampler(torch.zeros(N, 1, dtype=torch.long), scores).argmax(-1)
    exact = (scores[0].double() / 0.003).softmax(-1)
    assert chi_square(tokens, exact) < 15.1  # 99.99 %, 1 degree


@pytest.mark.parametrize(("number", "token"), [(0.0, 1), (1 - 2.0**-52, 2)])
def test_the_ends_of_the_uniform_range_miss_impossible_tokens(
    number: float, token: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sampling, "uniform", lambda seed, step: number)
    scores = torch.tensor([[float("-inf"), 0.3, 0.2, float("-inf")]])
    drawn = SeededSampler([0], SamplingParams(1, 1.0))(torch.zeros(1, 1).long(), scores)
    assert drawn.argmax(-1).tolist() == [token]


def test_the_uniform_numbers() -> None:
    values = torch.tensor([uniform(seed, 3) for seed in range(N)], dtype=torch.float64)
    assert values.min() >= 0
    assert values.max() < 1
    assert chi_square((values * 20).long(), torch.full((20,), 0.05, dtype=torch.float64)) < 52.4
    assert uniform(1, 2) == uniform(1, 2)
    assert len({uniform(1, 23), uniform(12, 3), uniform(23, 1), uniform(2**64 + 1, 23)}) == 4


def test_the_watch_notes_the_first_bad_step() -> None:
    watch = LogitsWatch(3, torch.device("cpu"))
    ids = torch.zeros(3, 1, dtype=torch.long)
    for bad_row, value in [(None, 0.0), (1, float("nan")), (0, float("inf")), (1, float("nan"))]:
        scores = LOGITS.repeat(3, 1)
        if bad_row is not None:
            scores[bad_row, 2] = value
        assert watch(ids, scores) is scores
    assert watch.first_bad.tolist() == [2, 1, -1]
