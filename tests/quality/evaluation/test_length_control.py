"""Length control against scikit-learn, and where the answer is known."""

import numpy as np
import pytest

from flipfast.quality.evaluation.length_control import length_controlled_accuracy


def pairs(n, seed):
    draw = np.random.default_rng(seed)
    return draw.choice([0.0, 0.5, 1.0], size=n), draw.normal(40, 300, size=n), draw.random(n)


@pytest.mark.parametrize(("n", "seed"), [(5, 0), (50, 1), (800, 2)])
def test_against_scikit_learn(n, seed):
    linear_model = pytest.importorskip("sklearn.linear_model")
    wins, differences, weights = pairs(n, seed)
    columns = np.stack([np.ones(n), np.tanh(differences / differences.std())], axis=1)
    model = linear_model.LogisticRegression(C=100, fit_intercept=False, tol=1e-10, max_iter=10000)
    model.fit(  # a tie is half a win and half a loss
        np.concatenate([columns, columns]),
        np.repeat([1, 0], n),
        sample_weight=np.concatenate([weights * wins, weights * (1 - wins)]),
    )
    expected = 1 / (1 + np.exp(-model.coef_[0, 0]))
    assert length_controlled_accuracy(wins, differences, weights) == pytest.approx(
        expected, abs=1e-6
    )


def test_a_rater_that_likes_length_alone():
    draw = np.random.default_rng(3)
    differences = draw.normal(100, 300, size=2000)  # chosen responses are the longer ones
    wins = (differences > 0).astype(float)
    assert wins.mean() > 0.6
    assert length_controlled_accuracy(wins, differences, np.ones(2000)) == pytest.approx(
        0.5, abs=0.1
    )
    mirrored = np.concatenate([differences, -differences])
    found = length_controlled_accuracy(
        (mirrored > 0).astype(float), mirrored, np.ones(len(mirrored))
    )
    assert found == pytest.approx(0.5, abs=1e-9)


def test_a_known_model_of_length_and_quality():
    draw = np.random.default_rng(4)
    differences = draw.normal(0, 50, size=200_000)
    odds = 0.8 + 1.5 * np.tanh(differences / differences.std())
    wins = (draw.random(len(odds)) < 1 / (1 + np.exp(-odds))).astype(float)
    found = length_controlled_accuracy(wins, differences, np.ones(len(odds)))
    assert found == pytest.approx(1 / (1 + np.exp(-0.8)), abs=0.006)  # 4 standard errors


@pytest.mark.parametrize("differences", [[0.0] * 8, [7.0] * 8])
def test_without_differences_in_length_it_is_the_accuracy(differences):
    found = length_controlled_accuracy([1, 1, 1, 0, 1, 1, 0.5, 0.5], differences, [1] * 8)
    assert found == pytest.approx(0.75, abs=0.002)


def test_pairs_that_are_all_won_or_all_lost():
    draw = np.random.default_rng(5)
    differences, ones = draw.normal(0, 50, size=400), np.ones(400)
    won = length_controlled_accuracy(ones, differences, ones)
    lost = length_controlled_accuracy(0 * ones, differences, ones)
    assert 0.99 < won < 1
    assert lost == pytest.approx(1 - won)


@pytest.mark.parametrize("unit", [1e-3, 5, 1e3])
@pytest.mark.parametrize("seed", [2, 3, 6])
def test_units_of_length_do_not_count(seed, unit):
    wins, differences, weights = pairs(60, seed)
    assert length_controlled_accuracy(wins, unit * differences, weights) == pytest.approx(
        length_controlled_accuracy(wins, differences, weights), rel=0, abs=1e-12
    )


@pytest.mark.parametrize("unit", [1e-3, 5, 1e3])
def test_nor_do_they_where_length_alone_decides(unit):
    """Separable: without a limit to it the coefficient would grow for ever."""
    _, differences, weights = pairs(60, 6)
    for wins in (differences > 0, differences > 40, np.ones(60)):
        assert length_controlled_accuracy(wins, unit * differences, weights) == pytest.approx(
            length_controlled_accuracy(wins, differences, weights), rel=0, abs=1e-12
        )
