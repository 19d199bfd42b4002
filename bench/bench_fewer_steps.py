"""What drafts, early stop and pruning save on real groups, with equal rewards; the direct style.

The embedded model on the CPU. A case compares two ways of scoring the same groups: `plain` samples
a token a pass up to the end, `lossless` has everything on that leaves rewards as they are. Each run
starts with a model loaded anew and some other groups, so that drafts know what a process knows
that has been at work for a while, but nothing of the groups that count. Figures of both and their
ratios, second over first, are in `extra_info`. The model was trained on the instructions of most of
the workload's groups; held-out groups are made of those that its recipe leaves out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from bench.bench_reward import N_WARM_UP, Run, counting, medians, score, warm_reward
from bench.sizes import Sizes
from bench.workloads import Groups, take
from flipfast import FlipReward
from flipfast.training.data import RealText

Options = dict[str, Any]
Way = tuple[Options, Callable[[FlipReward, Groups], Run]]

PLAIN: Options = {"drafting": False, "early_stop": False}
STANDALONE: Options = {"style": "standalone"}
DIRECT: Options = {"style": "direct"}
CASES: dict[str, tuple[Options, Options]] = {
    "standalone": ({**STANDALONE, **PLAIN}, STANDALONE),
    "direct": ({**DIRECT, **PLAIN}, DIRECT),
    "direct over standalone": (STANDALONE, DIRECT),
    "plain direct over plain standalone": ({**STANDALONE, **PLAIN}, {**DIRECT, **PLAIN}),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        cases = [(source, case) for source in ("workload", "held_out") for case in CASES]
        quick = metafunc.config.getoption("--quick")
        metafunc.parametrize(("groups_of", "case"), cases[:1] if quick else cases)


@pytest.fixture(scope="module")
def workload(sizes: Sizes, source: Groups | None) -> Groups:
    """Groups to warm up with come last; so below."""
    return take(sizes.workloads["rl-step"], source, n_more=N_WARM_UP)


@pytest.fixture(scope="module")
def held_out(sizes: Sizes, shared_file: Callable[[str], Path]) -> Groups:
    found: dict[str, list[str]] = {}
    pairs = RealText(shared_file("data/pairs_train.jsonl.gz"), held_out=True).pairs
    for instruction, response in dict.fromkeys(pairs):
        found.setdefault(instruction, []).append(response)
    wanted = sizes.workloads["rl-step"]
    full = [(x, few) for x, few in found.items() if len(few) >= wanted.n_responses]
    return take(wanted, full, n_more=N_WARM_UP)


def bench_groups(
    benchmark: Any, request: pytest.FixtureRequest, sizes: Sizes, groups_of: str, case: str
) -> None:
    groups: Groups = request.getfixturevalue(groups_of)
    first, second = CASES[case]
    benchmark.group = f"{groups_of}, {len(groups) - N_WARM_UP} groups"
    ways = (first, scored), (second, scored)
    compare(benchmark, groups, sizes, *ways, same=first["style"] == second["style"])


@pytest.mark.parametrize("style", ["standalone", "direct"])
def bench_best_of_n(benchmark: Any, workload: Groups, sizes: Sizes, style: str) -> None:
    """The best of each group, a call a group: `score` against `score_best_of`, the same winners."""
    benchmark.group = "best-of-n, cpu"
    ways = [({"style": style}, partial(best_of, prune=prune)) for prune in (False, True)]
    runs = compare(benchmark, workload, sizes, *ways, same=True)
    rewards_per_s = medians([pruned for _, pruned in runs])["rewards_per_s"]
    benchmark.extra_info.update(rewards_per_s=rewards_per_s, shape="embedded", style=style)


def compare(
    benchmark: Any, groups: Groups, sizes: Sizes, first: Way, second: Way, *, same: bool
) -> list[tuple[Run, Run]]:
    """Time the second way, each round behind one of the first; with `same` to equal rewards."""
    counted, warm_up = groups[:-N_WARM_UP], groups[-N_WARM_UP:]
    runs: list[tuple[Run, Run]] = []
    before: list[Run] = []

    def run(way: Way, some: Groups) -> Run:
        options, score_groups = way
        with warm_reward(options, warm_up) as reward:
            return score_groups(reward, some)

    def load_second() -> tuple[tuple[FlipReward], dict[str, Any]]:
        before.append(run(first, counted))
        return (warm_reward(second[0], warm_up),), {}

    def run_second(reward: FlipReward) -> None:
        with reward:
            runs.append((before[-1], second[1](reward, counted)))
        assert not same or runs[-1][0].rewards == runs[-1][1].rewards

    if same:
        few = counted[:1]
        assert run(first, few).rewards == run(second, few).rewards
    benchmark.pedantic(run_second, setup=load_second, rounds=sizes.rounds)
    benchmark.extra_info.update(
        first=medians([a for a, _ in runs]),
        second=medians([b for _, b in runs]),
        ratios={
            name: round(median(b.figures[name] / a.figures[name] for a, b in runs), 3)
            for name in runs[0][0].figures
        },
    )
    return runs


def scored(reward: FlipReward, groups: Groups) -> Run:
    return score(reward, groups)[1]


def best_of(reward: FlipReward, groups: Groups, *, prune: bool) -> Run:
    """The winners' places and rewards, a call a group, and what each group took."""

    def best(instruction: str, responses: list[str]) -> tuple[int | None, float | None, int]:
        if prune:
            batch: Any = reward.score_best_of(instruction, responses)
            place = batch.best
        else:
            batch = reward.score([instruction] * len(responses), responses)
            place = max(range(len(batch)), key=lambda i: (batch.rewards[i] or 0.0, -i))
        return place, batch.rewards[place], sum(batch.n_output_tokens)

    found, counted = counting(reward, lambda: [best(*group) for group in groups])
    figures = {
        "passes_a_group": counted["sampling_passes"] / len(groups),
        "output_tokens_a_group": sum(n_tokens for *_, n_tokens in found) / len(groups),
        "groups_per_s": len(groups) / counted["seconds"],
        "rewards_per_s": sum(len(responses) for _, responses in groups) / counted["seconds"],
    }
    return Run([value for place, f1, _ in found for value in (place, f1)], figures)
