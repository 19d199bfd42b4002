"""What a step costs, learnt from the steps that went by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_FORGETTING = 0.998
_FIRST = 16  # steps before the fit is believed
_SCALE = np.array([1.0, 1 / 32, 1 / 256, 1.0])  # brings the unknowns to one size
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
        self._fit = np.zeros(4)
        self._uncertainty = np.eye(4) * 1e3

    def observe(self, n_sequences: int, n_rows: int, drafted: bool, seconds: float) -> None:
        """Take a step into account."""
        parts = np.array([1.0, n_sequences, n_rows, drafted]) * _SCALE
        x = parts / max(seconds, 1e-6)
        spread = self._uncertainty @ x
        gain = spread / (_FORGETTING + x @ spread)
        self._fit += gain * (1 - x @ self._fit)
        self._uncertainty -= np.outer(gain, spread)
        if np.trace(self._uncertainty) < _LARGEST:
            self._uncertainty /= _FORGETTING
        self._n += 1

    def prices(self) -> Prices | None:
        """The fit so far; None before there were enough steps."""
        if self._n < _FIRST:
            return None
        step, sequence, row, drafted = np.maximum(self._fit * _SCALE, 0.0).tolist()
        return Prices(step, sequence, max(row, 1e-9), drafted)
