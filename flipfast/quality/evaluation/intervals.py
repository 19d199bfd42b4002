"""95% confidence intervals: over items, and over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

import numpy as np

from flipfast.quality.agreement import require_stats

Interval = tuple[float, float]

_LEVEL = 0.95
_RESAMPLES = 2000


def bootstrap_interval(strata: Sequence[Sequence[float]]) -> Interval:
    """Return the bootstrap percentile interval of the mean of the strata's means (Efron 1979).

    Each stratum is resampled within itself. The draws are the same in each call.

    Args:
        strata: the item values of each; at least one stratum, and one item in each.
    """
    draw = np.random.default_rng(0)
    means = np.zeros(_RESAMPLES)
    for stratum in strata:
        values, counts = np.unique(np.asarray(stratum, np.float64), return_counts=True)
        # How often each value occurs in a resample: items of equal value are drawn together.
        drawn = draw.multinomial(len(stratum), counts / len(stratum), size=_RESAMPLES)
        means += drawn @ values / len(stratum)
    low, high = np.quantile(means / len(strata), [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def seeds_interval(values: Sequence[float]) -> Interval | None:
    """Return Student's t interval of the mean over seeds; None for fewer than two.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    if len(values) < 2:
        return None
    quantile = float(require_stats().t.ppf((1 + _LEVEL) / 2, len(values) - 1))
    half = quantile * stdev(values) / len(values) ** 0.5
    return fmean(values) - half, fmean(values) + half
