"""Sampled rewards from several seeds, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from flipfast.errors import ConfigError
from flipfast.quality.consistency import Run, SeedNoise, compare_seeds
from flipfast.quality.consistency.seeds import rewards_by_response
from flipfast.quality.raters import Group

pytest.importorskip("scipy")

WORDS = ["k", "l", "m", "n"]
GROUPS = [Group("k l m n", ("one", "two", "three")), Group("k l", ("one", "two")), Group("x", ())]


def by_seed(prompt, request):
    return " ".join(WORDS[: 1 + request.seed % 4])


def runs_of(*rewards):
    return [Run.of(str(i), groups) for i, groups in enumerate(rewards)]


def test_noise_and_signal_by_hand():
    runs = runs_of([[0.0, 1.0], [0.5]], [[0.5, 1.0], [0.5]], [[1.0, 1.0], [0.8]])
    found = SeedNoise.of(1.0, runs)
    noises = [np.std(x, ddof=1) for x in ([0, 0.5, 1], [1, 1, 1], [0.5, 0.5, 0.8])]
    assert found.noise == pytest.approx(np.mean(noises))
    assert found.signal == pytest.approx(np.std([0.5, 1.0], ddof=1))
    assert found.signal_to_noise == pytest.approx(found.signal / found.noise)
    assert (found.flips.n_pairs, found.flips.n_flipped) == (1, 0)  # the third seed ties the two
    assert found.same_best == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)


def test_flips_are_pooled_over_pairs_of_seeds():
    found = SeedNoise.of(1.0, runs_of([[1.0, 2.0, 3.0]], [[2.0, 1.0, 3.0]], [[1.0, 2.0, 3.0]]))
    assert (found.flips.n_pairs, found.flips.n_flipped) == (9, 2)
    assert found.flips.share == pytest.approx(2 / 9)


def test_failures_are_left_out():
    found = SeedNoise.of(1.0, runs_of([[None, 0.2, 0.6]], [[0.4, 0.2, 0.6]], [[None, 0.4, 0.6]]))
    noises = [np.std(x, ddof=1) for x in ([0.2, 0.2, 0.4], [0.6, 0.6, 0.6])]
    assert found.noise == pytest.approx(np.mean(noises))  # one reward says nothing of the noise
    means = [0.4, np.mean([0.2, 0.2, 0.4]), 0.6]
    assert found.signal == pytest.approx(np.std(means, ddof=1))
    assert [run.n_failed for run in found.runs] == [1, 0, 1]


@pytest.mark.parametrize("rewards", [[], [[]], [[None]], [[0.5]], [[None, None]]])
def test_nothing_to_say(rewards):
    found = SeedNoise.of(1.0, runs_of(rewards, rewards))
    assert found.signal is found.signal_to_noise is found.flips.share is None


def test_without_noise_there_is_no_ratio():
    found = SeedNoise.of(1.0, runs_of([[0.0, 1.0]], [[0.0, 1.0]]))
    assert (found.noise, found.signal_to_noise) == (0, None)
    assert found.signal == pytest.approx(np.std([0, 1], ddof=1))


def test_seeds_start_at_the_rewards_own(scripted):
    reward = scripted(by_seed, style="direct", temperature=0.7, seed=5)
    found = compare_seeds(reward, GROUPS, 3)
    assert [run.name for run in found.runs] == ["seed=5", "seed=6", "seed=7"]
    assert found.temperature == reward.inverter.sampling.temperature == 0.7
    instructions = [group.instruction for group in GROUPS for _ in group.responses]
    responses = [text for group in GROUPS for text in group.responses]
    first = reward.score(instructions, responses).rewards
    assert [value for group in found.runs[0].rewards for value in group] == first


def test_a_greedy_reward_is_sampled_at_one(scripted):
    reward = scripted(by_seed, style="direct")
    found = compare_seeds(reward, GROUPS, 8)
    assert found.temperature == reward.inverter.sampling.temperature == 1
    assert found.noise > 0
    sampled = [x for group in rewards_by_response(found.runs) for x in group]
    assert found.noise == pytest.approx(np.mean([np.std(x, ddof=1) for x in sampled]))


def test_groups_have_no_say_in_each_other(scripted):
    reward = scripted(by_seed, style="direct")
    straight, turned = (compare_seeds(reward, groups) for groups in (GROUPS, GROUPS[::-1]))
    assert [run.rewards[::-1] for run in turned.runs] == [run.rewards for run in straight.runs]
    assert turned.flips == straight.flips
    assert turned.noise == pytest.approx(straight.noise)


def test_one_seed_is_too_few(scripted):
    with pytest.raises(ConfigError, match="at least 2 seeds to compare, not 1"):
        compare_seeds(scripted(by_seed), GROUPS, 1)
