"""The reward as a rater, and raters by name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flipfast.errors import ConfigError
from flipfast.quality.raters import Group, available_raters, load_rater
from flipfast.reward import FlipReward

GROUPS = [
    Group("Name a river in Spain.", ("The Ebro is a river in Spain.", "Bread needs flour.")),
    Group("Say nothing.", ()),
    Group("And its length?", ("It is 930 km long.",), context="user: Name a river in Spain."),
]


@pytest.fixture(scope="module")
def reward() -> Iterator[FlipReward]:
    with FlipReward() as reward:
        yield reward


def test_scores_are_the_rewards(reward):
    rater = load_rater("flip", reward)
    found = rater.rate(GROUPS)
    first = reward.score([GROUPS[0].instruction] * 2, GROUPS[0].responses)
    third = reward.score([GROUPS[2].instruction], GROUPS[2].responses, [GROUPS[2].context])
    assert found.scores == [first.rewards, [], third.rewards]
    assert found.statuses == [first.status, [], third.status]
    assert found.errors == [[None, None], [], [None]]
    assert found.cost.n_runs == 3
    assert found.cost.n_output_tokens == sum(first.n_output_tokens + third.n_output_tokens)


def test_no_groups(reward):
    assert load_rater("flip", reward).rate([]).scores == []


def test_a_response_that_cannot_be_read_has_no_score(reward):
    found = load_rater("flip", reward).rate([Group("Hi", ("Hello!", None))])
    assert found.scores[0][0] is not None
    assert found.scores[0][1] is None
    assert found.statuses[0][1] == "contentless"
    assert "None" in found.errors[0][1]


def test_options_behind_the_name(reward):
    rater = load_rater("flip:metric=char_f1,style=direct", reward)
    expected = FlipReward(metric="char_f1", style="direct", inverter=reward.inverter).score(
        [GROUPS[0].instruction] * 2, GROUPS[0].responses
    )
    assert rater.rate(GROUPS[:1]).scores == [expected.rewards]
    assert rater.name == "flip:metric=char_f1,style=direct"


@pytest.mark.slow
def test_the_seed_counts_where_something_is_sampled(reward):
    greedy = load_rater("flip", reward)
    sampled = load_rater("flip:temperature=1.5,max_new_tokens=24", reward)
    assert not greedy.uses_seed
    assert sampled.uses_seed
    groups = [Group(GROUPS[0].instruction, GROUPS[0].responses * 4)]
    assert sampled.rate(groups, seed=1).scores == sampled.rate(groups, seed=1).scores
    found = {str(sampled.rate(groups, seed=seed).scores) for seed in range(4)}
    assert len(found) > 1


@pytest.mark.parametrize(
    ("spec", "named"),
    [("jury", "jury"), ("flip:colour=red", "colour"), ("flip:dtype=bfloat16", "another way")],
)
def test_what_cannot_be_loaded(reward, spec, named):
    with pytest.raises(ConfigError, match=named):
        load_rater(spec, reward)


def test_names():
    assert "flip" in available_raters()
    assert "base" not in available_raters()
