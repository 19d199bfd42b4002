"""What scores of an item say, against counts made by hand and by enumeration."""

from itertools import product
from statistics import fmean

import pytest

from flipfast.quality.evaluation.accuracy import Outcome, outcome


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ([3], [1, 2], Outcome(True, 1.0, (1.0, 1.0), False, 0)),
        ([2], [1, 3], Outcome(False, 0.0, (1.0, 0.0), False, 0)),
        ([2], [2, 1, 2], Outcome(False, 1 / 3, (0.5, 1.0, 0.5), True, 0)),
        ([0], [0], Outcome(False, 0.5, (0.5,), True, 0)),
        ([None], [-5], Outcome(False, 0.0, (0.0,), False, 1)),
        ([-5], [None, None], Outcome(True, 1.0, (1.0, 1.0), False, 2)),
        ([None], [None, None, None], Outcome(False, 0.25, (0.5,) * 3, False, 4)),
        ([None], [1, 1], Outcome(False, 0.0, (0.0, 0.0), False, 1)),
        ([3, 2], [1], Outcome(True, 1.0, (1.0, 1.0), False, 0)),
        ([3, 1], [2], Outcome(False, 1.0, (1.0, 0.0), False, 0)),
        ([3, 3], [3, 0], Outcome(False, 2 / 3, (0.5, 1.0, 0.5, 1.0), True, 0)),
        ([3, None], [0], Outcome(False, 1.0, (1.0, 0.0), False, 1)),
    ],
)
def test_an_item(chosen, rejected, expected):
    assert outcome(chosen, rejected) == expected


def test_a_uniform_rating_from_one_to_ten_of_four():
    found = [outcome(scores[:1], scores[1:]) for scores in product(range(1, 11), repeat=4)]
    assert sum(one.strict for one in found) == 2025  # of 10,000: the cubes of 0 to 9
    assert fmean(one.split for one in found) == pytest.approx(0.25, abs=1e-12)
    assert fmean(one.won for one in found) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_credits_of_all_responses_add_up_to_one(n):
    for scores in product([None, 0.0, 1.0, 2.0], repeat=n):
        credits = [outcome([scores[i]], scores[:i] + scores[i + 1 :]).split for i in range(n)]
        assert sum(credits) == pytest.approx(1)


def test_neither_order_nor_scale_counts():
    a = outcome([0.3, None], [0.1, 0.3, None])
    b = outcome([None, 30], [None, 30, 10])
    assert (a.strict, a.split, a.tie, a.n_failed) == (b.strict, b.split, b.tie, b.n_failed)
    assert sorted(a.wins) == sorted(b.wins)
