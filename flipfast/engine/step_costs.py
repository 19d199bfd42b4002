"""Estimates what a step costs from the durations of past steps."""

from __future__ import annotations

from dataclasses import dataclass

_FORGETTING = 0.998
_FIRST = 16  # steps before the fit is used
_SCALE = (1.0, 1 / 32, 1 / 256, 1.0)  # brings the unknowns to a similar size
_LARGEST = 1e6  # bounds the fit's uncertainty, which grows for inputs that never vary


@dataclass(frozen=True)
class Prices:
    """Seconds per step, per sequence in it, per row, and for having any draft at all."""

    step: float
    sequence: float
    row: float
    drafted: float

    def saved(self, n_sequences: int) -> float:
        """Seconds an accepted draft token saves: its share of a later step of n_sequences."""
        return self.step / n_sequences + self.sequence + self.row

    def break_even(self, n_sequences: int) -> float:
        """The acceptance probability above which a drafted row saves more time than it costs."""
        return self.row / self.saved(n_sequences)


class StepCosts:
    """Fits the durations of steps to their contents, weighting the latest steps most.

    Recursive least squares with forgetting (Haykin, Adaptive Filter Theory, ch. 10) on relative
    errors, so that a decode step counts as much as a long prefill, and a step delayed by something
    else hardly at all.
    """

    def __init__(self) -> None:
        self._n = 0
        self._fit = [0.0] * 4
        self._uncertainty = [[1e3 if i == j else 0.0 for j in range(4)] for i in range(4)]

    def observe(self, n_sequences: int, n_rows: int, drafted: bool, seconds: float) -> None:
        """Add a step to the fit."""
        # Plain floats: NumPy takes several times as long for four numbers.
        parts = (1.0, n_sequences, n_rows, drafted)
        x = [part * scale / max(seconds, 1e-6) for part, scale in zip(parts, _SCALE, strict=True)]
        spread = [_dot(row, x) for row in self._uncertainty]
        share = 1 / (_FORGETTING + _dot(x, spread))
        error = 1 - _dot(x, self._fit)
        self._fit = [fit + s * share * error for fit, s in zip(self._fit, spread, strict=True)]
        grow = 1 / _FORGETTING if sum(self._uncertainty[i][i] for i in range(4)) < _LARGEST else 1.0
        self._uncertainty = [
            [(u - s * share * other) * grow for u, other in zip(row, spread, strict=True)]
            for row, s in zip(self._uncertainty, spread, strict=True)
        ]
        self._n += 1

    def prices(self) -> Prices | None:
        """The fit so far; None before 16 steps have been observed."""
        if self._n < _FIRST:
            return None
        step, sequence, row, drafted = (
            max(fit * scale, 0.0) for fit, scale in zip(self._fit, _SCALE, strict=True)
        )
        return Prices(step, sequence, max(row, 1e-9), drafted)


def _dot(a: list[float], b: list[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3]
