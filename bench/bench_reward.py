"""The whole reward, from texts to numbers, with the embedded model: each style, the likelihood.

Before anything is timed, a batch is compared with its rows scored alone, the word F1 of all
inferred instructions with the Python twin's, and likelihoods with those of transformers. Each round
starts with a model loaded anew that has scored some other groups. Against transformers and other
peers: bench_engine; with single options on and off: bench_fewer_steps.
"""

from __future__ import annotations

from statistics import fmean, median
from typing import Any

import pytest
import torch
import transformers

from bench.models import EMBEDDED
from bench.rewards import Run, best_of_groups, score, warm_reward
from bench.sizes import Sizes
from bench.workloads import Groups, columns, take
from flipfast import FlipReward
from flipfast.metrics.word_f1_py import word_f1
from flipfast.profiling.runs import device_and_dtype
from flipfast.prompts.conversation import checked_texts

N_WARM_UP = 2  # groups
_N_ALONE = 3  # rows
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}  # of a mean log-probability
STYLES: dict[str, dict[str, Any]] = {
    "standalone": {"style": "standalone"},
    "direct": {"style": "direct"},
    "likelihood": {"style": "direct", "scoring": "likelihood"},
}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def rl_step(sizes: Sizes, source: Groups | None) -> Groups:
    """Those to warm up with come last; so below."""
    return take(sizes.workloads["rl-step"], source, n_more=N_WARM_UP)


@pytest.fixture(scope="module")
def best_of_n(sizes: Sizes, source: Groups | None) -> Groups:
    return take(sizes.workloads["best-of-n"], source, n_more=N_WARM_UP)


@pytest.mark.parametrize("style", list(STYLES))
def bench_rl_step(benchmark: Any, rl_step: Groups, sizes: Sizes, device: str, style: str) -> None:
    """All rows of a step in one call."""
    options = {**STYLES[style], "device": device}
    counted, warm_up = rl_step[:-N_WARM_UP], rl_step[-N_WARM_UP:]
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
    note(benchmark, runs, len(expected), style)


@pytest.mark.parametrize("call", ["score", "score_best_of"])
@pytest.mark.parametrize("style", ["standalone", "direct"])
def bench_best_of_n(benchmark: Any, best_of_n: Groups, style: str, call: str) -> None:
    """A call a group, and its best response; one round, as the groups are many."""
    options = STYLES[style]
    counted, warm_up = best_of_n[:-N_WARM_UP], best_of_n[-N_WARM_UP:]
    expected = checked_winners(options, counted[:N_WARM_UP], warm_up)
    runs: list[Run] = []

    def load() -> tuple[tuple[FlipReward], dict[str, Any]]:
        return (warm_reward(options, warm_up),), {}

    def run(reward: FlipReward) -> None:
        with reward:
            runs.append(best_of_groups(reward, counted, prune=call == "score_best_of"))
        assert runs[-1].rewards[: len(expected)] == expected

    benchmark.group = f"best-of-n, {style}, cpu"
    benchmark.pedantic(run, setup=load, rounds=1)
    n = sum(len(responses) for _, responses in counted)
    note(benchmark, runs, n, style)


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
            twins = [word_f1(*pair)[0] for pair in zip(batch.inferred, instructions, strict=True)]
            scored = [reward for reward in batch.rewards if reward is not None]
            assert scored == [
                f1 for f1, reward in zip(twins, batch.rewards, strict=True) if reward is not None
            ]
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


def checked_winners(options: dict[str, Any], groups: Groups, warm_up: Groups) -> list[float | None]:
    """Places and rewards of the winners, the same with and without pruning; F1 as the twin's."""
    with warm_reward(options, warm_up) as reward:
        pruned = best_of_groups(reward, groups, prune=True).rewards
        assert pruned == best_of_groups(reward, groups, prune=False).rewards
        for at, (instruction, responses) in enumerate(groups):
            place, best = pruned[2 * at : 2 * at + 2]
            alone = reward.score([instruction], [responses[int(place or 0)]])
            assert best == word_f1(alone.inferred[0], instruction)[0]
    return pruned


def note(benchmark: Any, runs: list[Run], n: int, style: str) -> None:
    """Medians of the rounds' figures."""
    figures = {
        name: round(median(run.figures[name] for run in runs), 3) for name in runs[0].figures
    }
    benchmark.extra_info.update(figures, n_rows=n, shape="embedded", style=style)
