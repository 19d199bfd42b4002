"""Identical requests run once, in a call and across calls, and nothing tells."""

from __future__ import annotations

from typing import Any

import pytest

from flipfast import ConfigError, FlipReward
from flipfast.backends import Inversion, InversionRequest, SamplingParams
from flipfast.scoring.running import RequestRunner, Results
from tests.prompts.conftest import make_tokenizer  # noqa: F401  (a fixture)
from tests.scripted import ScriptedInverter

ROWS = [[5, 6], [7], [5, 6], [5, 6], [7, 8]]


class Versioned(ScriptedInverter):
    """One whose weights may change."""

    version = 0

    @property
    def weights_version(self) -> int:
        return self.version


@pytest.fixture
def inverter(make_tokenizer: Any) -> Versioned:  # noqa: F811
    """Answers with the prompt's tokens and the seed; fails at token 9."""

    def answer(_: str, request: InversionRequest) -> Inversion:
        if 9 in request.prompt_ids:
            return Inversion.failed("nine")
        return Inversion([*request.prompt_ids, request.seed], f"{request}", "stop")

    return Versioned(make_tokenizer(), answer)


def run(
    inverter: Versioned, rows: list[list[int]], *, cache: int = 0, seeds: Any = None
) -> tuple[RequestRunner, Results]:
    runner = RequestRunner(inverter, SamplingParams(8), None, cache)
    return runner, again(runner, rows, seeds)


def again(runner: RequestRunner, rows: list[list[int]], seeds: Any = None) -> Results:
    requests = [InversionRequest(ids, (seeds or [0] * len(rows))[i]) for i, ids in enumerate(rows)]
    done: list[int] = []
    results = runner.run(requests, [""] * len(rows), done.append)
    assert done == sorted(done)
    assert done[-1:] == [len(rows)][: len(rows)]
    return results


def test_identical_requests_run_once(inverter: Versioned) -> None:
    _, results = run(inverter, ROWS)
    assert [list(r.prompt_ids) for r in inverter.requests] == [[5, 6], [7], [7, 8]]
    assert [i.output_ids for i in results.inversions] == [[*ids, 0] for ids in ROWS]
    assert (results.n_folded, results.n_cached) == (2, 0)
    assert results.n_tokens == (2 + 3) + (1 + 2) + (2 + 3)


def test_another_seed_is_another_request(inverter: Versioned) -> None:
    _, results = run(inverter, [[5], [5], [5], [5, 0]], seeds=[1, 2, 1, 1])
    assert [i.output_ids for i in results.inversions] == [[5, 1], [5, 2], [5, 1], [5, 0, 1]]
    assert len(inverter.requests) == 3


def test_nothing_is_kept_unless_asked_for(inverter: Versioned) -> None:
    runner, _ = run(inverter, ROWS)
    assert again(runner, ROWS).n_cached == 0
    assert len(inverter.requests) == 3


def test_results_are_kept_for_later_calls(inverter: Versioned) -> None:
    runner, first = run(inverter, ROWS, cache=8)
    inverter.requests = []
    later = again(runner, [*ROWS[::-1], [6]])
    assert [list(r.prompt_ids) for r in inverter.requests] == [[6]]
    assert later.inversions[:-1] == first.inversions[::-1]
    assert (later.n_folded, later.n_cached, later.n_tokens) == (2, 3, 3)
    inverter.requests = []
    assert again(runner, ROWS).n_tokens == 0
    assert inverter.requests == []


def test_the_least_recently_used_gives_way(inverter: Versioned) -> None:
    runner, _ = run(inverter, [[1], [2]], cache=2)
    again(runner, [[1]])
    again(runner, [[3]])
    assert [again(runner, [ids]).n_cached for ids in ([3], [1], [2])] == [1, 1, 0]
    assert again(runner, [[i] for i in range(1, 9)]).n_folded == 0  # more than it can keep
    assert again(runner, [[7], [8]]).n_cached == 2


def test_failures_are_not_kept(inverter: Versioned) -> None:
    runner, first = run(inverter, [[9], [1]], cache=4)
    assert first.inversions[0].error == "nine"
    assert again(runner, [[9], [1]]).n_cached == 1


def test_new_weights_forget(inverter: Versioned) -> None:
    runner, _ = run(inverter, [[1]], cache=4)
    inverter.version = 1
    assert again(runner, [[1]]).n_cached == 0
    assert again(runner, [[1]]).n_cached == 1


def test_results_that_new_weights_overtook_are_not_kept(inverter: Versioned) -> None:
    runner, _ = run(inverter, [[1]], cache=4)
    generate = inverter.generate

    def overtaken(*args: Any) -> list[Inversion]:
        inverter.generate = generate  # type: ignore[method-assign]
        inverter.version = 1
        again(runner, [[3]])  # a call of another thread
        return generate(*args)

    inverter.generate = overtaken  # type: ignore[method-assign]
    again(runner, [[2]])
    assert [again(runner, [ids]).n_cached for ids in ([2], [3])] == [0, 1]


def test_no_requests(inverter: Versioned) -> None:
    _, results = run(inverter, [])
    assert results == Results(n_folded=0, n_cached=0, n_tokens=0, inversions=[], scores=[])


def test_the_reward_counts_both(make_tokenizer: Any) -> None:  # noqa: F811
    inverter = ScriptedInverter(make_tokenizer(), lambda *_: "Name two rivers")
    reward = FlipReward(inverter=inverter, style="direct", cache_rewards=9)
    first = reward.score(["Name two rivers", "Name a sea"] * 2, ["r", "r", "s", "r"])
    assert (first.stats.n_folded, first.stats.n_cached) == (2, 0)
    assert first.rewards == [1.0, 0.4, 1.0, 0.4]
    second = reward.score(["rivers"] * 2, ["s", "t"])
    assert (second.stats.n_folded, second.stats.n_cached) == (0, 1)
    assert second.rewards == [0.5, 0.5]
    with pytest.raises(ConfigError, match="cache_rewards must be 0 or more, not -1"):
        FlipReward(inverter=inverter, cache_rewards=-1)


def test_samples_of_a_row_are_its_own(make_tokenizer: Any) -> None:  # noqa: F811
    inverter = ScriptedInverter(make_tokenizer(), lambda *_: "x")
    reward = FlipReward(inverter=inverter, style="direct", samples=3, temperature=1.0)
    stats = reward.score(["x"] * 4, ["r", "r", "s", "r"]).stats
    assert (len(inverter.requests), stats.n_folded) == (6, 6)
