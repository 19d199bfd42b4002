"""Rewards by another metric: on the embedded model, against the metric on the inferred texts."""

import pytest

from flipfast import ConfigError, FlipReward
from flipfast.metrics.registry import load_metric

INSTRUCTIONS = ["Write a poem about the sea.", "Name three rivers.", "Define soil.", "Say hi."]
RESPONSES = ["The sea, the sea, so blue.", "The Ebro, the Po and the Rhine.", "Earth.", 3]
SPECS = ("word_f1", "rouge_l", "char_f1", "token_f1", "f_beta:2")


@pytest.fixture(scope="module")
def rewards():
    """A reward a metric, on one model."""
    first = FlipReward(device="cpu")
    shared = {"inverter": first.inverter, "device": "cpu"}
    found = {spec: FlipReward(metric=spec, **shared) for spec in SPECS}
    yield found
    first.close()


@pytest.mark.parametrize("spec", SPECS)
def test_it_compares_the_inferred_texts(rewards, spec):
    published = rewards["word_f1"].score(INSTRUCTIONS, RESPONSES)
    batch = rewards[spec].score(INSTRUCTIONS, RESPONSES)
    assert batch.inferred == published.inferred
    assert (batch.precision, batch.recall) == (published.precision, published.recall)
    metric = load_metric(spec, rewards[spec].inverter.tokenizer)
    assert batch.rewards[:3] == metric(batch.inferred[:3], INSTRUCTIONS[:3]).tolist()
    assert batch.rewards[3] is None
    assert batch.status[3] == "error"


def test_rows_alone_and_the_best_of_them(rewards):
    reward = rewards["char_f1"]
    batch = reward.score([INSTRUCTIONS[0]] * 3, RESPONSES[:3])
    alone = [reward.score([INSTRUCTIONS[0]], [text]).rewards[0] for text in RESPONSES[:3]]
    assert batch.rewards == alone
    best = reward.score_best_of(INSTRUCTIONS[0], RESPONSES[:3])
    assert best.best == max(range(3), key=alone.__getitem__)
    assert (best.rewards, best.n_pruned) == (alone, 0)  # the bound is one of word F1


@pytest.mark.slow
def test_means_and_failures(rewards):
    shared = {"inverter": rewards["rouge_l"].inverter, "metric": "rouge_l", "on_failure": -1.0}
    reward = FlipReward(samples=3, temperature=1.0, device="cpu", **shared)
    batch = reward.score(INSTRUCTIONS, RESPONSES)
    assert batch.rewards[3] == -1.0
    assert batch.reward_std[0] >= 0
    assert all(0 <= value <= 1 for value in batch.rewards[:3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "words"}, "there is no metric 'words'"),
        ({"metric": "bleu", "scoring": "likelihood"}, "leave metric at 'word_f1', not 'bleu'"),
    ],
)
def test_wrong_use(rewards, options, message):
    with pytest.raises(ConfigError, match=message):
        FlipReward(inverter=rewards["word_f1"].inverter, **options)
