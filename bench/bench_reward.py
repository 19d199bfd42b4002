"""The whole reward, from texts to numbers, with the embedded model: each style, the likelihood.

Before anything is timed, a batch is compared with its rows scored alone, the word F1 of all
inferred instructions with the Python twin's, and likelihoods with those of transformers. Each round
starts with a model loaded anew that has scored some other groups.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean, median
from time import perf_counter
from typing import Any, NamedTuple

import pytest
import torch
import transformers

from bench.models import EMBEDDED
from bench.sizes import Sizes
from bench.workloads import Groups, columns, take
from flipfast import FlipReward, ScoreBatch
from flipfast.metrics.word_f1_py import word_f1
from flipfast.profiling.runs import device_and_dtype
from flipfast.prompts.conversation import checked_texts

N_WARM_UP = 4  # groups
_N_ALONE = 3  # rows
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}  # of a mean log-probability
STYLES: dict[str, dict[str, Any]] = {
    "standalone": {"style": "standalone"},
    "direct": {"style": "direct"},
    "likelihood": {"style": "direct", "scoring": "likelihood"},
}


@pytest.mark.parametrize("style", list(STYLES))
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def bench_rl_step(
    benchmark: Any, sizes: Sizes, source: Groups | None, device: str, style: str
) -> None:
    """All rows of a step in one call."""
    options = {**STYLES[style], "device": device}
    groups = take(sizes.workloads["rl-step"], source, n_more=N_WARM_UP)
    counted, warm_up = groups[:-N_WARM_UP], groups[-N_WARM_UP:]
    expected = checked_rewards(options, counted, warm_up)
    runs: list[Run] = []

    def load() -> tuple[tuple[FlipReward], dict[str, Any]]:
        return (warm_reward(options, warm_up),), {}

    def run(reward: FlipReward) -> None:
        with reward:
            runs.append(score(reward, counted)[1])
        assert runs[-1].rewards == expected

    benchmark.group = f"rl-step, {device}"
    benchmark.pedantic(run, setup=load, rounds=sizes.rounds)
    benchmark.extra_info.update(medians(runs), n_rows=len(expected), shape="embedded", style=style)


class Run(NamedTuple):
    """The rewards, and what each of them took; of best-of-N the winners with their rewards."""

    rewards: list[float | None]
    figures: dict[str, float]


def medians(runs: list[Run]) -> dict[str, float]:
    """Of the runs' figures."""
    return {key: round(median(x.figures[key] for x in runs), 3) for key in runs[0].figures}


def warm_reward(options: dict[str, Any], warm_up: Groups) -> FlipReward:
    """A reward that has scored some groups besides those that count.

    Its drafts know what a process knows that has been at work for a while; no prompt but the
    template's start is cached.
    """
    reward = FlipReward(**{"device": "cpu", **options})
    reward.score(*columns(warm_up))
    reward.inverter.forget_prefixes()  # type: ignore[attr-defined]
    return reward


def score(reward: FlipReward, groups: Groups) -> tuple[ScoreBatch, Run]:
    """Score groups in one call."""
    batch, counted = counting(reward, lambda: reward.score(*columns(groups)))
    n, seconds = len(batch), counted["seconds"]
    figures = {
        "passes_a_reward": counted["sampling_passes"] / n,
        "tokens_a_reward": sum(batch.n_output_tokens) / n,
        "rows_a_reward": counted["computed_tokens"] / n,
        "rewards_per_s": n / seconds,
        "prompt_tokens_per_s": sum(batch.n_prompt_tokens) / seconds,
        "output_tokens_per_s": sum(batch.n_output_tokens) / seconds,
    }
    return batch, Run(batch.rewards, figures)


def counting(reward: FlipReward, run: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What a call gives, its seconds, and by how much it has moved the engine's counters."""
    inverter: Any = reward.inverter
    before, started = inverter.counters, perf_counter()
    result = run()
    seconds, after = perf_counter() - started, inverter.counters
    moved = {name: getattr(after, name) - value for name, value in vars(before).items()}
    return result, {**moved, "seconds": seconds}


def checked_rewards(options: dict[str, Any], groups: Groups, warm_up: Groups) -> list[float | None]:
    """The rewards of a batch, which are right.

    Raises:
        AssertionError: a row alone, the twin, or transformers says otherwise.
    """
    with warm_reward(options, warm_up) as reward:
        batch, _ = score(reward, groups)
        instructions, responses = columns(groups)
        for i in range(_N_ALONE):
            alone = reward.score(instructions[i : i + 1], responses[i : i + 1])
            assert alone.rewards == batch.rewards[i : i + 1]
        if "scoring" in options:
            expected = likelihoods(reward, instructions[:_N_ALONE], responses[:_N_ALONE])
            tolerance = _TOLERANCE[device_and_dtype(reward.config)[1]]
            assert batch.rewards[:_N_ALONE] == pytest.approx(expected, abs=tolerance)
        else:
            rows = zip(batch.rewards, batch.inferred, instructions, strict=True)
            assert all(f1 is None or f1 == word_f1(found, true)[0] for f1, found, true in rows)
    return batch.rewards


def likelihoods(reward: FlipReward, instructions: list[str], responses: list[str]) -> list[float]:
    """The mean log-probability of each instruction's tokens, as transformers finds it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32).eval()
    means = []
    for row in reward._rows(checked_texts, instructions, responses, [None] * len(responses)):
        prompt, targets = row.request.prompt_ids, row.request.target_ids  # type: ignore[attr-defined]
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *targets]])).logits[0, len(prompt) - 1 : -1]
        chosen = logits.log_softmax(-1).gather(-1, torch.tensor(targets)[:, None])
        means.append(fmean(chosen[:, 0].tolist()))
    return means
