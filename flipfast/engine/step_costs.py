"""What a step costs, learnt from the steps that went by."""

from __future__ import annotations

from dataclasses import dataclass

_FORGETTING = 0.998
_FIRST = 16  # steps before the fit is believed
_SCALE = (1.0, 1 / 32, 1 / 256, 1.0)  # brings the unknowns to one size
_LARGEST = 1e6  # of the fit's uncertainty: what is never varied must not grow without end


@dataclass(frozen=True)
class Prices:
    """Seconds for a step, for each sequence in it, for each row, and for having any draft."""

    step: float
    sequence: float
    row: float
    drafted: float

    def saved(self, n_sequences: int) -> float:
        """Seconds that an accepted draft saves: its place in a later step of so many sequences."""
        return self.step / n_sequences + self.sequence + self.row

    def break_even(self, n_sequences: int) -> float:
        """The chance of acceptance from which a drafted row is worth its seconds."""
        return self.row / self.saved(n_sequences)


class StepCosts:
    """Fits the seconds of steps to what was in them, the latest counting most.

    Recursive least squares with forgetting (Haykin, Adaptive Filter Theory, ch. 10) on relative
    errors, so that a decode step counts as much as a long prefill, and one that had to wait for
    something else hardly at all.
    """

    def __init__(self) -> None:
        self._n = 0
        self._fit = [0.0] * 4
        self._uncertainty = [[1e3 if i == j else 0.0 for j in range(4)] for i in range(4)]

    def observe(self, n_sequences: int, n_rows: int, drafted: bool, seconds: float) -> None:
        """Take a step into account."""
        # Plain floats: for four numbers NumPy takes several times as long.
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
        """The fit so far; None before there were enough steps."""
        if self._n < _FIRST:
            return None
        step, sequence, row, drafted = (
            max(fit * scale, 0.0) for fit, scale in zip(self._fit, _SCALE, strict=True)
        )
        return Prices(step, sequence, max(row, 1e-9), drafted)


def _dot(a: list[float], b: list[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3]
