"""Runs made up at random: what counts as a regression."""

import math
import random

import pytest

from bench.verdicts import SMALLEST, compare


def runs(rng, n_pairs, *, slower=1.0, noise=0.0, drift=0.0, bursts=0.0):
    """Seconds of old and new runs in turns, the first and the last of them old.

    Args:
        noise: deviation of a run's logarithm.
        drift: deviation of the machine's next speed from the last.
        bursts: share of runs that something else slows down.
    """
    speed, found = 0.0, ([], [])
    for i in range(2 * n_pairs + 1):
        speed += rng.gauss(0, drift)
        burst = abs(rng.gauss(0, 0.3)) if rng.random() < bursts else 0.0
        seconds = math.exp(speed + rng.gauss(0, noise) + burst)
        found[i % 2].append(seconds * (slower if i % 2 else 1.0))
    return found


def regression(rng, **conditions):
    """As `bench.compare` finds it: five pairs to suspect, others to judge."""
    if not compare(*runs(rng, 5, **conditions)).suspicious:
        return False
    return compare(*runs(rng, 7, **conditions)).slower


def test_without_noise():
    same = compare([2.0] * 6, [2.0] * 5)
    assert (same.ratio, same.noise, same.n_pairs) == (1.0, 0.0, 5)
    assert (same.slower, same.faster, same.suspicious) == (False, False, False)
    slower, faster = compare([2.0] * 6, [2.2] * 5), compare([2.0] * 6, [1.8] * 5)
    assert slower.ratio == pytest.approx(1.1)
    assert slower.slower
    assert slower.suspicious
    assert not slower.faster
    assert faster.faster
    assert not faster.slower


def test_a_change_too_small_to_tell():
    less = compare([1.0] * 6, [1 + 0.9 * SMALLEST] * 5)
    assert (less.slower, less.suspicious) == (False, False)


def test_a_machine_that_slows_down_is_no_regression():
    """Each run takes 3 % longer than the one before it, whichever code it is of."""
    seconds = [1.03**i for i in range(11)]
    found = compare(seconds[::2], seconds[1::2])
    assert found.ratio == pytest.approx(1.0)
    assert not found.slower
    assert compare(seconds[::2], [1.3 * x for x in seconds[1::2]]).slower


def test_one_burst_of_other_load_moves_nothing():
    assert not compare([1.0] * 6, [1.0, 1.0, 5.0, 1.0, 1.0]).suspicious
    assert not compare([1.0, 5.0, 1.0, 1.0, 1.0, 1.0], [1.0] * 5).faster


def test_noise_of_either_code_counts():
    new = [1.1, 1.4, 1.1, 0.9, 1.3]
    found = compare([1.0] * 6, new)
    assert found.noise > 0.1
    assert found.suspicious
    assert not found.slower


@pytest.mark.parametrize(("n_old", "n_new"), [(5, 5), (2, 1), (6, 4), (0, 0)])
def test_runs_that_do_not_alternate(n_old, n_new):
    with pytest.raises(ValueError, match=f"{n_old} old and {n_new} new"):
        compare([1.0] * n_old, [1.0] * n_new)


CONDITIONS = {  # noise and what may then be missed or cried over, in twelve benchmarks of a run
    "quiet": ({"noise": 0.01}, 0.0, 0.99),
    "noisy": ({"noise": 0.03}, 0.01, 0.9),
    "drifting": ({"noise": 0.01, "drift": 0.02, "bursts": 0.1}, 0.01, 0.75),
    "hopeless": ({"noise": 0.06, "drift": 0.03, "bursts": 0.15}, 0.05, 0.0),
}


@pytest.mark.parametrize(
    ("conditions", "false_alarms", "caught"), CONDITIONS.values(), ids=list(CONDITIONS)
)
def test_false_alarms_and_regressions_caught(conditions, false_alarms, caught):
    """Of whole runs with no change, and of single benchmarks that got a tenth slower."""
    rng = random.Random(1)
    alarms = [any(regression(rng, **conditions) for _ in range(12)) for _ in range(200)]
    assert sum(alarms) / len(alarms) <= false_alarms
    found = [regression(rng, slower=1.1, **conditions) for _ in range(400)]
    assert sum(found) / len(found) >= caught
