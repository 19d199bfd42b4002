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

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from bench.rewards import Run, best_of_groups, score, warm_reward
from bench.sizes import Sizes
from bench.workloads import Groups, take
from flipfast import FlipReward
from flipfast.training.data import RealText

N_WARM_UP = 4  # groups

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

SOURCES = ("workload", "held_out")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    cases = [(source, case) for source in SOURCES for case in CASES]
    if metafunc.config.getoption("--quick"):
        cases = cases[:1]
    metafunc.parametrize(("groups_of", "case"), cases)


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
    same = first["style"] == second["style"]
    benchmark.group = f"{groups_of}, {len(groups) - N_WARM_UP} groups"
    compare(benchmark, groups, sizes, (first, scored), (second, scored), same=same)


@pytest.mark.parametrize("style", ["direct", "standalone"])
def bench_best_of(benchmark: Any, workload: Groups, sizes: Sizes, style: str) -> None:
    """The best of each group, a call a group: `score` against `score_best_of`, the same winners."""
    if not sizes.more_cases:
        pytest.skip("with --quick bench_reward alone has the best of groups")
    options = {"style": style, **LOSSLESS}
    ways = [(options, plain_best_of), (options, pruned_best_of)]
    benchmark.group = f"workload, best of each of {len(workload) - N_WARM_UP} groups"
    compare(benchmark, workload, sizes, *ways, same=True)


Way = tuple[dict[str, Any], Callable[[FlipReward, Groups], Run]]


def compare(
    benchmark: Any, groups: Groups, sizes: Sizes, first: Way, second: Way, *, same: bool
) -> None:
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
    note(benchmark, runs)


def scored(reward: FlipReward, groups: Groups) -> Run:
    return score(reward, groups)[1]


def plain_best_of(reward: FlipReward, groups: Groups) -> Run:
    return best_of_groups(reward, groups, prune=False)


def pruned_best_of(reward: FlipReward, groups: Groups) -> Run:
    return best_of_groups(reward, groups, prune=True)


def note(benchmark: Any, runs: list[tuple[Run, Run]]) -> None:
    """Write both ways' figures, and their ratios, down with the benchmark."""
    benchmark.extra_info.update(
        first=noted([a for a, _ in runs]),
        second=noted([b for _, b in runs]),
        ratios={
            name: round(median(b.figures[name] / a.figures[name] for a, b in runs), 3)
            for name in runs[0][0].figures
        },
    )


def noted(runs: list[Run]) -> dict[str, float]:
    """Medians of the runs' figures."""
    names = runs[0].figures
    return {name: round(median(run.figures[name] for run in runs), 3) for name in names}
