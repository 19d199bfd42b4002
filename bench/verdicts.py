"""Whether a benchmark got slower: paired ratios against the noise of the same runs.

Runs of the old and the new code alternate, old, new, old, ..., new, old, so that each new run
stands between two old ones and a machine that gets slower meanwhile does so for both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

SMALLEST = 0.05  # a change that is told, however quiet the machine
_DEVIATIONS = 2.5  # of the ratio that change and noise are told apart by
_MAD_TO_DEVIATION = 1.4826  # for normal noise
_MEDIAN_TO_MEAN = 1.2533  # deviation of a median over that of a mean, likewise


@dataclass(frozen=True)
class Comparison:
    """A benchmark of two revisions.

    Attributes:
        old, new: seconds, the medians of the runs.
        ratio: new over old, the median of the pairs.
        noise: a ratio may be as far from 1 as this with no change in the code.
        n_pairs: how many pairs.
    """

    old: float
    new: float
    ratio: float
    noise: float
    n_pairs: int

    @property
    def slower(self) -> bool:
        """A regression."""
        return self.ratio > 1 + max(SMALLEST, self.noise)

    @property
    def faster(self) -> bool:
        """The opposite of one."""
        return 1 / self.ratio > 1 + max(SMALLEST, self.noise)

    @property
    def suspicious(self) -> bool:
        """Worth more runs: perhaps slower, for all that these can tell."""
        return self.ratio > 1 + SMALLEST


def compare(old: Sequence[float], new: Sequence[float]) -> Comparison:
    """Compare runs that alternated.

    A ratio is a new run over the geometric mean of its two neighbours. Noise comes from the same
    code's runs, of each code by itself: the median of the steps between a run and its next, which
    bursts of other load do not move. A step of logarithms has the variance of a ratio of two runs;
    the median of n ratios has 1.57 / n of it.

    Args:
        old: seconds of each run, one more than of the new code; in the order in which they ran.
        new: seconds of each run, at least two.

    Raises:
        ValueError: there is no old run on both sides of each new one.
    """
    if len(new) < 2 or len(old) != len(new) + 1:
        raise ValueError(f"{len(old)} old and {len(new)} new runs do not alternate")
    a, b = ([math.log(seconds) for seconds in runs] for runs in (old, new))
    ratios = [y - (x + z) / 2 for x, y, z in zip(a, b, a[1:], strict=False)]
    deviation = math.hypot(_step(a), _step(b)) / math.sqrt(2) * _MEDIAN_TO_MEAN / math.sqrt(len(b))
    noise = math.expm1(_DEVIATIONS * deviation)
    return Comparison(median(old), median(new), math.exp(median(ratios)), noise, len(new))


def _step(logarithms: Sequence[float]) -> float:
    """The deviation of the steps between neighbours."""
    return _MAD_TO_DEVIATION * median(abs(y - x) for x, y in pairwise(logarithms))
