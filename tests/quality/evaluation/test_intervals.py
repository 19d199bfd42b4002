"""Intervals against scipy."""

import numpy as np
import pytest

from flipfast.quality.evaluation.intervals import bootstrap_interval, seeds_interval

stats = pytest.importorskip("scipy.stats")


def test_items_against_all_resamples():
    values = (np.random.default_rng(1).random(300) < 0.3).astype(float)
    expected = stats.binom.ppf([0.025, 0.975], 300, values.mean()) / 300
    assert bootstrap_interval([values]) == pytest.approx(tuple(expected), abs=0.008)


def test_strata_are_resampled_within_themselves():
    draw = np.random.default_rng(3)
    strata = [draw.random(200), 5 + draw.random(50)]
    # of a mean of independent means: the errors add in squares
    error = 1.96 * np.sqrt(sum(one.var() / len(one) for one in strata)) / 2
    mean = np.mean([one.mean() for one in strata])
    low, high = bootstrap_interval(strata)
    assert low == pytest.approx(mean - error, abs=0.15 * error)
    assert high == pytest.approx(mean + error, abs=0.15 * error)


def test_items_of_equal_value_and_a_single_one():
    assert bootstrap_interval([[0.5] * 9, [1.0]]) == (0.75, 0.75)


def test_the_same_each_time():
    values = np.random.default_rng(4).random(40)
    assert bootstrap_interval([values]) == bootstrap_interval([values])


def test_seeds_against_scipy():
    values = [0.4, 0.45, 0.38, 0.5, 0.41]
    expected = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert seeds_interval(values) == pytest.approx(tuple(expected))
    assert seeds_interval([0.25, 0.75]) == pytest.approx((0.5 - 12.7062 / 4, 0.5 + 12.7062 / 4))
    assert seeds_interval([0.3] * 3) == pytest.approx((0.3, 0.3))


def test_one_seed_has_no_interval():
    assert seeds_interval([0.4]) is None
