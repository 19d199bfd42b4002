"""What purity costs: rewards/s with deterministic=True over those without, on the same requests.

Prefill, decode and the whole of a request on prescribed outputs, which every run checks; rewards of
real rows for the embedded model. A run of each kind makes a pair, whose halves change places from
pair to pair; the ratio is the median of the pairs, with the least and the most beside it. What
pytest prints is the time of a pair. On the CPU the shape of Qwen3-0.6B takes minutes; `-k embedded`
leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median
from time import perf_counter
from typing import Any

import pytest

from bench.scripted import ScriptedModel, load_shape, script_of
from bench.sizes import FULL, QUICK, Prescribed, Scaling, Sizes, Workload
from bench.workloads import Groups, columns, take
from flipfast import FlipReward

PHASES = ("prefill", "decode", "request")
N_ALONE = 2  # rows whose rewards alone are compared with those among the others

Models = dict[bool, ScriptedModel]  # by whether they are deterministic


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    sizes = QUICK if metafunc.config.getoption("--quick") else FULL
    cases = [
        pytest.param((shape, device), id=f"{shape}-{device}", marks=marks)
        for device, marks in (("cpu", ()), ("cuda", pytest.mark.gpu))
        for shape in sizes.scaling[device].pure_models
    ]
    metafunc.parametrize("case", cases, indirect=True, scope="module")


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A shape and a device."""
    found: tuple[str, str] = request.param
    return found


@pytest.fixture(scope="module")
def scaling(case: tuple[str, str], sizes: Sizes) -> Scaling:
    return sizes.scaling[case[1]]


@pytest.fixture(scope="module")
def models(case: tuple[str, str], scaling: Scaling) -> Iterator[Models]:
    loaded = {
        pure: load_shape(*case, memory=scaling.memory, deterministic=pure) for pure in (True, False)
    }
    yield loaded
    for model in loaded.values():
        model.close()


@pytest.mark.parametrize("phase", PHASES)
def bench_phase(
    benchmark: Any, case: tuple[str, str], models: Models, scaling: Scaling, phase: str
) -> None:
    benchmark.group = f"purity of a {phase}" if phase == "request" else f"purity of {phase}"
    asked = requests_of(phase, scaling.requests, models[True].page_size)
    script, decode = script_of(asked, models[True]), phase == "decode"
    for model in models.values():
        model.write(script)  # checks the results, and has prompts' pages ready for decode

    def seconds(pure: bool) -> float:
        return models[pure].write(script, keep_prefixes=decode).seconds

    compare(benchmark, seconds, asked.n, scaling.pairs)
    benchmark.extra_info.update(
        shape=case[0],
        dtype=models[True].dtype,
        prompt_tokens=asked.n_prompt,
        shared_tokens=asked.n_shared,
        output_tokens=asked.n_out,
    )


def bench_rewards(benchmark: Any, sizes: Sizes, source: Groups | None) -> None:
    """Real rows, the embedded model on the CPU, without drafts."""
    benchmark.group = "purity of rewards"
    scaling = sizes.scaling["cpu"]
    n_groups = -(-scaling.least_rows // 8)
    instructions, responses = columns(take(Workload(n_groups, 8), source))
    rewards = {
        pure: FlipReward(device="cpu", drafting=False, deterministic=pure) for pure in (True, False)
    }
    expected = {
        pure: reward.score(instructions, responses).rewards for pure, reward in rewards.items()
    }
    for x, y, among in list(zip(instructions, responses, expected[True], strict=True))[:N_ALONE]:
        assert rewards[True].score([x], [y]).rewards == [among]

    def seconds(pure: bool) -> float:
        inverter: Any = rewards[pure].inverter
        inverter.forget_prefixes()
        started = perf_counter()
        batch = rewards[pure].score(instructions, responses)
        spent = perf_counter() - started
        assert batch.rewards == expected[pure]
        return spent

    compare(benchmark, seconds, len(responses), scaling.pairs)
    for reward in rewards.values():
        reward.inverter.close()
    same = [a == b for a, b in zip(expected[True], expected[False], strict=True)]
    benchmark.extra_info.update(shape="embedded", equal_rewards=sum(same) / len(same))


def requests_of(phase: str, requests: Prescribed, page_size: int) -> Prescribed:
    """Requests of a phase: those of decode have prompts of full pages, which are kept, and a token.

    Of the rest a prefill has one output token, which its last row brings.
    """
    if phase == "prefill":
        return replace(requests, n_out=1)
    if phase == "decode":
        return replace(requests, n_prompt=requests.n_prompt // page_size * page_size + 1)
    return requests


def compare(benchmark: Any, seconds: Callable[[bool], float], n_rewards: int, n_pairs: int) -> None:
    """Time pairs, and note rewards/s of both kinds with their ratio, deterministic over not.

    Args:
        benchmark: the fixture.
        seconds: runs all requests, deterministic or not.
        n_rewards: that a run brings.
        n_pairs: how many pairs.
    """
    pairs: list[dict[bool, float]] = []

    def pair() -> None:
        first = len(pairs) % 2 == 0
        pairs.append({pure: seconds(pure) for pure in (first, not first)})

    benchmark.pedantic(pair, rounds=n_pairs)
    ratios = [found[False] / found[True] for found in pairs]
    benchmark.extra_info.update(
        n_rows=n_rewards,
        rewards_per_s=n_rewards / median(found[True] for found in pairs),
        fast_rewards_per_s=n_rewards / median(found[False] for found in pairs),
        ratio=median(ratios),
        ratio_least=min(ratios),
        ratio_most=max(ratios),
        pairs=n_pairs,
    )
