"""The likelihood reward as a rater."""

from __future__ import annotations

from typing import Any

import pytest

from flipfast import ConfigError, FlipReward
from flipfast.quality.raters import Group, load_rater

GROUP = Group("Name a river in Spain.", ("The Ebro is a river in Spain.", "Bread needs flour."))


@pytest.mark.slow
def test_scores_are_the_rewards() -> None:
    with FlipReward(temperature=0.7, samples=2, metric="char_f1") as reward:
        likely = FlipReward(scoring="likelihood", inverter=reward.inverter)
        expected = likely.score([GROUP.instruction] * 2, GROUP.responses).rewards
        rater = load_rater("likelihood", reward)
        found = rater.rate([GROUP, Group("Hi", ())], seed=7)
    assert found.scores == [expected, []]
    assert expected[0] > expected[1]
    assert not rater.uses_seed


def test_a_model_without_likelihoods(make_judge: Any) -> None:
    with pytest.raises(ConfigError, match="needs backend='native'"):
        make_judge("likelihood", lambda *_: "")
