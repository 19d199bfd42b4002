"""The plot of `flipfast attack`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flipfast.quality.attacks import Climb, Trial, figures

# Distinguishable with any kind of color vision (Okabe and Ito 2008).
_BEATS, _TIES, _FAILED = "#D55E00", "#56B4E9", "0.85"
_SCORE, _GOLD = "#D55E00", "#0072B2"
_PANEL, _ROW = 2.6, 0.2  # inches: width of a panel, height of an attack's bar
_CLIMB = 2.6  # inches: height of the curves


def save_plot(
    path: str, raters: Sequence[str], trials: Sequence[Trial], climbs: Sequence[Climb]
) -> None:
    """Draw a panel per rater with a bar per attack: the shares of pairs it wins, ties or fails.

    If there are climbs, a second row has a panel per rater with its score and the gold score.

    Args:
        path: the file to write, in the format of its suffix; see check_plot.
        raters: names.
        trials: with one outcome per rater.
        climbs: one per rater, or none.
    """
    from matplotlib.figure import Figure

    heights = [_ROW * len(trials) + 1.2, *([_CLIMB] if climbs else [])]
    size = (_PANEL * len(raters) + 2, sum(heights))
    figure = Figure(figsize=size, layout="constrained")
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_attacks(parts[0], raters, trials)
    if climbs:
        _draw_climbs(parts[1], raters, climbs)
    figure.savefig(path, dpi=150)


def _draw_attacks(part: Any, raters: Sequence[str], trials: Sequence[Trial]) -> None:
    panels = part.subplots(1, len(raters), squeeze=False, sharey=True)[0]
    names = [trial.attack.name for trial in trials]
    for at, (panel, rater) in enumerate(zip(panels, raters, strict=True)):
        left = [0.0] * len(names)
        shares = [_shares(trial, at) for trial in trials]
        for kind, (label, colour) in enumerate(
            (("higher", _BEATS), ("equal", _TIES), ("no score", _FAILED))
        ):
            widths = [share[kind] for share in shares]
            panel.barh(names, widths, left=left, label=label, color=colour)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        panel.set(xlim=(0, 1), ymargin=0.01, title=rater.replace(",", ",\n"))
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    title = "share of pairs, attacked response against the honest one"
    part.legend(handles, labels, title=title, loc="outside lower center", ncols=3)


def _shares(trial: Trial, rater: int) -> tuple[float, float, float]:
    """Return the shares of pairs where the attack scores higher, ties, or a score is missing."""
    outcome = trial.outcomes[rater]
    found = figures(outcome)
    both = [
        honest is not None and attacked is not None
        for honest, attacked in zip(outcome.honest, outcome.attacked, strict=True)
    ]
    rated = sum(both) / len(both) if both else 0.0
    return (found.beats or 0.0) * rated, (found.ties or 0.0) * rated, 1 - rated


def _draw_climbs(part: Any, raters: Sequence[str], climbs: Sequence[Climb]) -> None:
    """Draw the score on the left axis and the gold score on the right one."""
    panels = part.subplots(1, len(raters), squeeze=False)[0]
    for panel, rater, one in zip(panels, raters, climbs, strict=True):
        scores = [float("nan") if score is None else score for score in one.mean_rewards]
        other = panel.twinx()
        lines = [
            *panel.plot(scores, color=_SCORE, label="score (left)"),
            *other.plot(one.mean_golds, color=_GOLD, label="honest answer left (right)"),
        ]
        panel.set(xlabel="steps", title=rater.replace(",", ",\n"))
        other.set(ylim=(0, 1.05))
    part.legend(handles=lines, loc="outside lower center", ncols=2)
