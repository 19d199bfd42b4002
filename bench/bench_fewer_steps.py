"""What drafts and early stop save on real groups, with equal rewards; what the direct style saves.

The embedded model on the CPU. A case compares two ways of scoring the same groups: `plain` samples
a token a pass up to the end, `lossless` has everything on that leaves rewards as they are. Each run
starts with a model loaded anew and some other groups, so that drafts know what a process knows
that has been at work for a while, but nothing of the groups that count. What pytest prints is the
second way's time; figures and their ratios, second over first, are in `extra_info`.

The model was trained on the instructions of most of the workload's groups; the held-out groups are
made of those that its recipe leaves out.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import pytest
import torch

from flipfast import FlipReward
from flipfast.training.data import RealText

N_GROUPS, N_WARM_UP, N_RESPONSES = 24, 4, 8
ROUNDS = 3

PLAIN: dict[str, Any] = {"drafting": False, "early_stop": False}
LOSSLESS: dict[str, Any] = {}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "standalone": ({"style": "standalone", **PLAIN}, {"style": "standalone", **LOSSLESS}),
    "direct": ({"style": "direct", **PLAIN}, {"style": "direct", **LOSSLESS}),
    "direct over standalone": (
        {"style": "standalone", **LOSSLESS},
        {"style": "direct", **LOSSLESS},
    ),
    "plain direct over plain standalone": (
        {"style": "standalone", **PLAIN},
        {"style": "direct", **PLAIN},
    ),
}

Groups = list[tuple[str, list[str]]]


class Run(NamedTuple):
    """The rewards, and what each of them took; of best-of-N the winners with their rewards."""

    rewards: list[float | None]
    figures: dict[str, float]


@pytest.fixture(scope="module")
def workload(shared_file: Callable[[str], Path]) -> Groups:
    with gzip.open(shared_file("data/workload_groups.jsonl.gz"), "rt", encoding="utf-8") as lines:
        groups = [json.loads(line) for line in islice(lines, N_GROUPS + N_WARM_UP)]
    return [(group["instruction"], group["responses"][:N_RESPONSES]) for group in groups]


@pytest.fixture(scope="module")
def held_out(shared_file: Callable[[str], Path]) -> Groups:
    found: dict[str, list[str]] = {}
    pairs = RealText(shared_file("data/pairs_train.jsonl.gz"), held_out=True).pairs
    for instruction, response in dict.fromkeys(pairs):
        found.setdefault(instruction, []).append(response)
    groups = [(x, few[:N_RESPONSES]) for x, few in found.items() if len(few) >= N_RESPONSES]
    return groups[: N_GROUPS + N_WARM_UP]


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("source", ["workload", "held_out"])
def bench_groups(benchmark: Any, request: pytest.FixtureRequest, source: str, case: str) -> None:
    groups: Groups = request.getfixturevalue(source)
    first, second = CASES[case]
    runs: list[tuple[Run, Run]] = []
    before: list[Run] = []

    def load_second() -> tuple[tuple[FlipReward], dict[str, Any]]:
        with warm_reward(first, groups) as reward:
            before.append(score(reward, groups))
        return (warm_reward(second, groups),), {}

    def run(reward: FlipReward) -> None:
        with reward:
            runs.append((before[-1], score(reward, groups)))

    benchmark.pedantic(run, setup=load_second, rounds=ROUNDS)
    if first["style"] == second["style"]:
        assert all(a.rewards == b.rewards for a, b in runs)
    benchmark.group = f"{source}, {N_GROUPS} groups"
    note(benchmark, runs)


@pytest.mark.parametrize("style", ["direct", "standalone"])
def bench_best_of(benchmark: Any, workload: Groups, style: str) -> None:
    """The best of each group, a call a group: `score` against `score_best_of`, the same winners."""
    options = {"style": style, **LOSSLESS}
    runs: list[tuple[Run, Run]] = []
    before: list[Run] = []

    def load_second() -> tuple[tuple[FlipReward], dict[str, Any]]:
        with warm_reward(options, workload) as reward:
            before.append(best_of_groups(reward, workload, prune=False))
        return (warm_reward(options, workload),), {}

    def run(reward: FlipReward) -> None:
        with reward:
            runs.append((before[-1], best_of_groups(reward, workload, prune=True)))

    benchmark.pedantic(run, setup=load_second, rounds=ROUNDS)
    assert all(a.rewards == b.rewards for a, b in runs)
    benchmark.group = f"workload, best of {N_RESPONSES}, {N_GROUPS} groups"
    note(benchmark, runs)


def best_of_groups(reward: FlipReward, groups: Groups, *, prune: bool) -> Run:
    """The winners' places and rewards, and what each group took."""
    found: list[float | None] = []
    n_tokens, before, started = 0, reward.inverter.counters, perf_counter()  # type: ignore[attr-defined]
    for instruction, responses in groups[:N_GROUPS]:
        if prune:
            batch: Any = reward.score_best_of(instruction, responses)
            best = batch.best
        else:
            batch = reward.score([instruction] * len(responses), responses)
            best = max(range(len(batch)), key=lambda i: (batch.rewards[i] or 0.0, -i))
        found += [best, batch.rewards[best]]
        n_tokens += sum(batch.n_output_tokens)
    seconds, after = perf_counter() - started, reward.inverter.counters  # type: ignore[attr-defined]
    figures = {
        "passes_a_group": (after.sampling_passes - before.sampling_passes) / N_GROUPS,
        "output_tokens_a_group": n_tokens / N_GROUPS,
        "groups_per_s": N_GROUPS / seconds,
    }
    return Run(found, figures)


def note(benchmark: Any, runs: list[tuple[Run, Run]]) -> None:
    """Write both ways' figures, and their ratios, down with the benchmark."""
    benchmark.extra_info.update(
        device=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        first=noted([a for a, _ in runs]),
        second=noted([b for _, b in runs]),
        ratios={
            name: round(median(b.figures[name] / a.figures[name] for a, b in runs), 3)
            for name in runs[0][0].figures
        },
    )


def warm_reward(options: dict[str, Any], groups: Groups) -> FlipReward:
    """A reward that has scored some groups besides those that count."""
    reward = FlipReward(device="cpu", **options)
    reward.score(*columns(groups[N_GROUPS:]))
    reward.inverter.forget_prefixes()  # type: ignore[attr-defined]
    return reward


def score(reward: FlipReward, groups: Groups) -> Run:
    """Score the groups that count."""
    before = reward.inverter.counters  # type: ignore[attr-defined]
    batch = reward.score(*columns(groups[:N_GROUPS]))
    after = reward.inverter.counters  # type: ignore[attr-defined]
    n = len(batch)
    figures = {
        "passes_a_reward": (after.sampling_passes - before.sampling_passes) / n,
        "tokens_a_reward": sum(batch.n_output_tokens) / n,
        "rows_a_reward": (after.computed_tokens - before.computed_tokens) / n,
        "rewards_per_s": batch.stats.rewards_per_s,
    }
    return Run(batch.rewards, figures)


def columns(groups: Groups) -> tuple[list[str], list[str]]:
    pairs = [(instruction, text) for instruction, responses in groups for text in responses]
    return [instruction for instruction, _ in pairs], [text for _, text in pairs]


def noted(runs: list[Run]) -> dict[str, float]:
    """Medians of the runs' figures."""
    names = runs[0].figures
    return {name: round(median(run.figures[name] for run in runs), 3) for name in names}
