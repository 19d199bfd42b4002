"""Measures how well a rater tells good responses from bad: preferences in, accuracies out."""

from __future__ import annotations

from flipfast.quality.evaluation.figures import Figure, Figures
from flipfast.quality.evaluation.preferences import Preference, Preferences, read_preferences
from flipfast.quality.evaluation.run import RaterReport, evaluate

__all__ = [
    "Figure",
    "Figures",
    "Preference",
    "Preferences",
    "RaterReport",
    "evaluate",
    "read_preferences",
]
