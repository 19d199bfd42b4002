"""What changes between two runs, against counts by hand, brute force and scipy."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flipfast.errors import InputError
from flipfast.quality.consistency import Run, change, rank_flips

stats = pytest.importorskip("scipy.stats")

REWARDS = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 0.1, 0.25, 0.5, 1.0, 1e300, -1e300]))
PAIRS = st.lists(st.lists(st.tuples(REWARDS, REWARDS), max_size=7), max_size=5)


def columns(pairs):
    return [[[row[i] for row in group] for group in pairs] for i in (0, 1)]


def test_flips_by_hand():
    flips = rank_flips([[1.0, 2.0, 3.0], [0.5, 0.5]], [[1.0, 3.0, 2.0], [0.1, 0.9]])
    assert (flips.n_pairs, flips.n_flipped, flips.share) == (3, 1, pytest.approx(1 / 3))


def test_ties_and_failures_are_no_pairs():
    flips = rank_flips([[1.0, 1.0, None, 2.0]], [[1.0, 2.0, 3.0, 0.0]])
    assert (flips.n_pairs, flips.n_flipped) == (2, 2)  # the last one against the first two
    for first, second in ([], []), ([[], [1.0]], [[], [2.0]]), ([[None, 1.0]], [[2.0, 3.0]]):
        assert rank_flips(first, second).share is None


def test_groups_have_no_say_in_each_other():
    one, other = ([1.0, 2.0], [2.0, 1.0]), ([3.0, 4.0, 9.0], [3.0, 4.0, 5.0])
    together = rank_flips([one[0], other[0]], [one[1], other[1]])
    assert (together.n_pairs, together.n_flipped) == (4, 1)
    assert together == rank_flips([other[0], one[0]], [other[1], one[1]])


@given(PAIRS)
def test_flips_by_brute_force(pairs):
    ordered = flipped = 0
    for group in pairs:
        known = [row for row in group if None not in row]
        for (a, b), (c, d) in combinations(known, 2):
            ordered += a != c and b != d
            flipped += (a < c and b > d) or (a > c and b < d)
    found = rank_flips(*columns(pairs))
    assert (found.n_pairs, found.n_flipped) == (ordered, flipped)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12))
def test_flips_and_kendall_tell_the_same(rows):
    """Concordant less discordant pairs is what tau-b has above its fraction line."""
    x, y = ([float(row[i]) for row in rows] for i in (0, 1))
    if len(set(x)) < 2 or len(set(y)) < 2:
        return
    all_pairs = len(rows) * (len(rows) - 1) // 2
    tied = [sum(n * (n - 1) // 2 for n in Counter(key).values()) for key in (x, y, rows)]
    below = np.sqrt((all_pairs - tied[0]) * (all_pairs - tied[1]))
    found = rank_flips([x], [y])
    assert found.n_pairs == all_pairs - tied[0] - tied[1] + tied[2]
    tau = stats.kendalltau(x, y).statistic
    assert found.n_pairs - 2 * found.n_flipped == pytest.approx(tau * below)


@pytest.mark.slow
@given(PAIRS)
def test_a_run_does_not_differ_from_itself(pairs):
    run = Run.of("one", columns(pairs)[0])
    found = change(run, run)
    assert found.flips.n_flipped == 0
    if found.n_both:
        assert (found.bit_equal, found.mean_difference) == (1, 0)
    else:
        assert found.bit_equal is found.mean_difference is None


def test_a_change_by_hand():
    first = Run.of("a", [[0.5, 1.0, None], [0.0, 0.25]])
    second = Run.of("b", [[0.5, 0.5, 1.0], [-0.0, None]])
    found = change(first, second)
    assert (found.first, found.second, found.n_both) == ("a", "b", 3)
    assert found.bit_equal == pytest.approx(1 / 3)  # 0.0 and -0.0 are not the same bits
    assert found.mean_difference == pytest.approx(0.5 / 3)
    assert first.n_failed == second.n_failed == 1
    assert first.mean_reward == pytest.approx(1.75 / 4)
    assert Run.of("none", [[None], []]).mean_reward is None


def test_other_groups_are_an_error():
    with pytest.raises(InputError, match=r"\[2\] and of \[1\] responses"):
        rank_flips([[1.0, 2.0]], [[1.0]])
    with pytest.raises(InputError, match="not the same ones"):
        change(Run.of("a", [[1.0]]), Run.of("b", [[1.0], []]))
