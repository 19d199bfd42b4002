"""Transforms and combinations of rewards, against NumPy and SciPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flipfast.errors import InputError
from flipfast.scoring.shaping import (
    group_normalized,
    log_sigmoid,
    logical_and,
    minimum,
    ranks,
    weighted_sum,
)

scipy_stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
numbers = st.floats(-50, 50)
groups_of_four = st.lists(st.integers(0, 5).map(float), min_size=4, max_size=4)


@given(st.lists(st.one_of(st.none(), st.floats(-800, 800))))
def test_log_sigmoid(rewards):
    known = np.array([r for r in rewards if r is not None])
    found = log_sigmoid(rewards)
    assert [r is None for r in found] == [r is None for r in rewards]
    expected = -np.logaddexp(0, -known)
    assert [r for r in found if r is not None] == pytest.approx(expected.tolist(), rel=1e-12)


@given(st.lists(groups_of_four, min_size=1, max_size=3))
def test_groups(groups):
    rewards = [reward for group in groups for reward in group]
    names = [i for i in range(len(groups)) for _ in range(4)]
    normalized = group_normalized(rewards, 4)
    assert normalized == group_normalized(rewards, names)
    for i, group in enumerate(groups):
        found = normalized[4 * i : 4 * i + 4]
        spread = np.std(group)
        expected = (np.array(group) - np.mean(group)) / spread if spread else np.zeros(4)
        assert found == pytest.approx(expected.tolist(), abs=1e-12)
        order = (scipy_stats.rankdata(group) - 1) / 3
        assert ranks(rewards, 4)[4 * i : 4 * i + 4] == pytest.approx(order.tolist())


def test_a_row_without_a_reward_stays_one():
    rewards = [0.2, None, 0.4, None, None, None, 0.7]
    names = list("aaabbcd")
    assert group_normalized(rewards, names)[1:2] + group_normalized(rewards, names)[3:] == [
        None,
        None,
        None,
        None,
        0.0,
    ]
    assert ranks(rewards, names) == [0.0, None, 1.0, None, None, None, 0.5]
    assert minimum([[0.1, None], [0.3, 0.2]]) == [0.1, None]
    assert weighted_sum([[0.1, None], [0.3, 0.2]], [1, 2]) == [pytest.approx(0.7), None]
    assert logical_and([[0.5, 0.5, None], [1, 0.9, 1.0]], [0.5, 1]) == [1.0, 0.0, None]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ranks([1.0] * 3, 2), "3 rows cannot be cut into groups of 2"),
        (lambda: ranks([1.0] * 3, 0), "groups of 0"),
        (lambda: group_normalized([1.0] * 3, list("ab")), "3 rewards, 2 groups"),
        (lambda: minimum([[1.0], [1.0, 2.0]]), r"1 columns\[0\], 2 columns\[1\]"),
        (lambda: weighted_sum([[1.0]], [1, 2]), "1 columns, 2 weights"),
        (lambda: logical_and([[1.0]], []), "1 columns, 0 least"),
    ],
)
def test_wrong_use(call, message):
    with pytest.raises(InputError, match=message):
        call()
