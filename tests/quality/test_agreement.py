"""How two rewards agree: by hand, by scipy, by counting all shuffles."""

import sys
from itertools import chain, permutations
from random import Random
from statistics import fmean

import pytest

from flipfast.errors import InputError, MissingDependencyError
from flipfast.quality.agreement import agreement, best_places

stats = pytest.importorskip("scipy.stats")


def random_groups(rng, sizes):
    """Rewards with ties, and some failures."""
    return [[rng.choice([None, 0.0, 0.25, 0.5, 1.0]) for _ in range(n)] for n in sizes]


def test_a_reward_agrees_with_itself():
    groups = [[0.1, 0.5, 0.5, None], [0.3, 0.2], [0.7]]
    found = agreement(groups, groups)
    assert found.kendall == pytest.approx(1)
    assert found.n_kendall == 2
    assert found.spearman == pytest.approx(1)
    assert found.same_best == 1
    assert found.chance == pytest.approx((2 / 4 + 1 / 2) / 2)


def test_by_hand():
    first = [[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]]
    second = [[1.0, 3.0, 2.0], [3.0, 2.0, 1.0]]  # two pairs of three in order, then none
    found = agreement(first, second)
    assert found.kendall == pytest.approx((1 / 3 - 1) / 2)
    assert found.same_best == 0
    assert found.chance == pytest.approx(1 / 3)


def test_ties_for_the_best_count_in_part():
    assert agreement([[1.0, 0.0, 0.0, 0.0]], [[1.0, 1.0, 0.0, 0.0]]).same_best == 1 / 2
    assert agreement([[1.0, 1.0, 0.0, 0.0]], [[0.0, 1.0, 1.0, 1.0]]).same_best == 1 / 3
    silent = agreement([[1.0, 0.0, 0.0, 0.0]], [[0.5] * 4])
    assert silent.same_best == silent.chance == 1 / 4


def test_a_reward_without_differences_orders_nothing():
    found = agreement([[0.1, 0.2], [0.3, 0.4]], [[0.5, 0.5], [0.5, 0.5]])
    assert (found.kendall, found.n_kendall, found.spearman) == (None, 0, None)
    one_group = agreement([[0.1, 0.2], [0.3, 0.4]], [[0.5, 0.5], [0.5, 0.6]])
    assert (one_group.kendall, one_group.n_kendall) == (pytest.approx(1), 1)


def test_failures_rank_lowest():
    numbers = [[0.5, -9.0, 0.0, -9.0]]
    failures = [[0.5, None, 0.0, None]]
    other = [[0.1, 0.2, 0.3, 0.4]]
    assert agreement(failures, other) == agreement(numbers, other)
    assert agreement(other, failures) == agreement(other, numbers)
    assert best_places([None, -3.0]) == {1}
    assert best_places([None, None]) == {0, 1}


def test_nothing_can_be_said_of_lone_responses():
    found = agreement([[0.1], [], [None]], [[0.3], [], [0.2]])
    assert (found.kendall, found.same_best, found.chance) == (None, None, None)


@pytest.mark.parametrize("seed", range(5))
def test_against_scipy(seed):
    rng = Random(seed)
    sizes = [rng.randrange(2, 7) for _ in range(12)]
    first, second = random_groups(rng, sizes), random_groups(rng, sizes)
    found = agreement(first, second)

    def filled(rewards):
        return [-1.0 if reward is None else reward for reward in rewards]

    taus = [
        stats.kendalltau(filled(a), filled(b)).statistic for a, b in zip(first, second, strict=True)
    ]
    assert found.kendall == pytest.approx(fmean(tau for tau in taus if tau == tau))
    rows = [filled(chain.from_iterable(groups)) for groups in (first, second)]
    assert found.spearman == pytest.approx(stats.spearmanr(*rows).statistic)


@pytest.mark.parametrize("seed", range(5))
def test_chance_is_the_mean_over_all_shuffles(seed):
    rng = Random(seed)
    [first], [second] = random_groups(rng, [5]), random_groups(rng, [5])
    shuffled = [agreement([first], [order]).same_best for order in permutations(second)]
    assert agreement([first], [second]).chance == pytest.approx(fmean(shuffled))


def test_groups_of_other_sizes_are_refused():
    with pytest.raises(InputError, match=r"\[2, 1\] and of \[2, 2\]"):
        agreement([[0.1, 0.2], [0.3]], [[0.1, 0.2], [0.3, 0.4]])


def test_without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'flipfast\[plot\]'"):
        agreement([[0.1, 0.2]], [[0.1, 0.2]])
