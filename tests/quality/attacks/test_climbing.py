"""The climbing attacker on toy raters whose optimum is known."""

from __future__ import annotations

from itertools import pairwise

import pytest

from flipfast.metrics.word_f1_py import word_f1
from flipfast.quality.attacks import climb
from flipfast.quality.raters import Group
from tests.quality.attacks.toys import Duel, Toy

GROUPS = [
    Group("Name a river, please, and its length.", ("The Ebro is 930 km long.", "Ask a map.")),
    Group("Say why bread rises.", ("Yeast makes gas\nin the dough.",), context="user: hello"),
]


def says_please(text: str) -> float:
    """Three words of the instruction are all that counts."""
    words = text.replace(",", "").split()
    return len({"please", "length.", "river"} & set(words)) / 3


def test_the_score_rises_and_the_answer_goes():
    found = climb(Toy(lambda text: float(text.count(" "))), GROUPS, 30)
    for rewards, golds, text, group in zip(
        found.rewards, found.golds, found.texts, GROUPS, strict=True
    ):
        assert len(rewards) == len(golds) == 31
        assert all(a <= b for a, b in pairwise(rewards))
        assert rewards[0] == group.responses[0].count(" ") < rewards[-1] == text.count(" ")
        assert golds[0] == 1.0
        assert golds[-1] == word_f1(text, group.responses[0])[0] < 0.5


def test_it_finds_an_optimum():
    found = climb(Toy(says_please), GROUPS[:1], 60)
    assert found.rewards[0][0] == 0.0
    assert found.rewards[0][-1] == 1.0
    assert {"please,", "length.", "river,"} <= set(found.texts[0].split())


def test_nothing_is_changed_for_the_same_score():
    found = climb(Toy(lambda _: 0.5), GROUPS, 5)
    assert found.texts == [group.responses[0] for group in GROUPS]
    assert found.mean_golds == [1.0] * 6
    assert found.mean_rewards == [0.5] * 6


def test_a_rater_that_compares_is_held_beside_the_honest_response():
    found = climb(Duel(lambda text: float(text.count(" "))), GROUPS, 9)
    assert [rewards[0] for rewards in found.rewards] == [1.0, 1.0]  # equal to itself: both best
    assert [rewards[-1] for rewards in found.rewards] == [1.0, 1.0]
    assert max(found.mean_golds[1:]) < 1.0


def test_failures_are_climbed_past_and_are_no_zeros():
    def score(text: str) -> float | None:
        return float(text.count(" ")) if text.count(" ") > 5 else None

    found = climb(Toy(score), GROUPS, 12)
    assert found.rewards[0][0] is None
    assert found.rewards[1][0] is None
    assert found.mean_rewards[0] is None
    assert None not in (found.rewards[0][-1], found.rewards[1][-1])
    never = climb(Toy(lambda _: None), GROUPS, 3)
    assert never.mean_rewards == [None] * 4
    assert never.mean_golds == [1.0] * 4


def test_one_batch_a_step_and_what_is_asked():
    calls = []

    class Counting(Toy):
        def rate(self, groups, *, seed=0):
            calls.append((len(groups), seed, {group.context for group in groups}))
            return super().rate(groups, seed=seed)

    climb(Counting(len), GROUPS, 4, n_candidates=3, seed=7)
    assert calls == [(4, 7, {None, "user: hello"})] * 5


def test_a_climber_depends_on_its_own_group_and_the_seed():
    together = climb(Toy(len), GROUPS, 10, seed=2)
    for at, group in enumerate(GROUPS):
        alone = climb(Toy(len), [group], 10, seed=2)
        assert (alone.rewards[0], alone.texts[0]) == (together.rewards[at], together.texts[at])
    assert climb(Toy(len), GROUPS, 10, seed=2) == together
    assert climb(Toy(len), GROUPS, 10, seed=3).texts != together.texts


@pytest.mark.parametrize("response", ["", " ", "one", "a\n\nb"])
def test_odd_responses(response):
    found = climb(Toy(len), [Group("", (response,))], 5)
    assert len(found.rewards[0]) == 6
    assert found.rewards[0][-1] >= len(response)


def test_no_groups_and_no_steps():
    assert climb(Toy(len), [], 3).texts == []
    assert climb(Toy(len), GROUPS, 0).mean_golds == [1.0]
