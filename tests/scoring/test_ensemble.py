"""Several rewards as one: means, minima, disagreement, failures."""

from statistics import pstdev

import pytest

from flipfast import ConfigError, FlipReward
from flipfast.scoring.ensemble import FlipEnsemble

INSTRUCTIONS = ["Write a poem about the sea.", "Name three rivers.", "Say hi."]
RESPONSES = ["The sea, the sea, so blue.", "The Ebro, the Po and the Rhine.", 3]


@pytest.fixture(scope="module")
def members():
    """The embedded model with three metrics."""
    first = FlipReward(device="cpu")
    names = ("char_f1", "rouge_l")
    yield [first, *(FlipReward(inverter=first.inverter, metric=name) for name in names)]
    first.close()


@pytest.mark.parametrize(("join", "expected"), [("mean", lambda row: sum(row) / 3), ("min", min)])
def test_rewards_and_disagreement(members, join, expected):
    batch = FlipEnsemble(members, join=join).score(INSTRUCTIONS, RESPONSES)
    alone = [member.score(INSTRUCTIONS, RESPONSES) for member in members]
    rows = list(zip(*(found.rewards for found in alone), strict=True))
    assert batch.rewards[:2] == [pytest.approx(expected(row)) for row in rows[:2]]
    assert batch.disagreement[:2] == [pytest.approx(pstdev(row)) for row in rows[:2]]
    assert (batch.rewards[2], batch.disagreement[2]) == (None, None)
    assert [found.rewards for found in batch.members] == [found.rewards for found in alone]
    assert len(batch) == 3


def test_a_trainers_call(members):
    ensemble = FlipEnsemble(members)
    expected = ensemble.score(INSTRUCTIONS[:2], RESPONSES[:2]).rewards
    assert ensemble(prompts=INSTRUCTIONS[:2], completions=RESPONSES[:2], step=1) == expected


def test_members_that_were_given_stay_open(members):
    with FlipEnsemble([members[0], "embedded"]) as ensemble:
        batch = ensemble.score(INSTRUCTIONS[:1], RESPONSES[:1])
        assert batch.disagreement == [0.0]
    assert members[0].score(INSTRUCTIONS[:1], RESPONSES[:1]).rewards == batch.rewards


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(([],), "needs a member"), ((["embedded"], "max"), "one of mean, min, not 'max'")],
)
def test_wrong_use(arguments, message):
    members, *join = arguments
    with pytest.raises(ConfigError, match=message):
        FlipEnsemble(members, **({"join": join[0]} if join else {}))
