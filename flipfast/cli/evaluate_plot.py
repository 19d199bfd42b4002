"""The plot of `flipfast eval`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flipfast.quality.evaluation import Figures, RaterReport

# Distinguishable with any kind of color vision (Okabe and Ito 2008).
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "0.4")
_BAR_INCHES = 0.22
_SHARE = 0.8  # of a subset's width that bars fill


def save_bars(path: str, reports: Sequence[RaterReport]) -> None:
    """Draw a bar per subset and rater: tie-split accuracy, its interval over items, and chance.

    Args:
        path: the file to write, in the format of its suffix (see agree_plot.check_plot).
        reports: at least one, all of the same items.
    """
    from matplotlib.figure import Figure

    groups = [*reports[0].subsets, "mean"]
    labels = [name.replace("$", r"\$") for name in groups]  # not as formulas
    width = max(5.0, 1.5 + _BAR_INCHES * len(groups) * (len(reports) + 1))
    figure = Figure(figsize=(width, 4), layout="constrained")
    axes = figure.subplots()
    for place, report in enumerate(reports):
        _draw(axes, place, len(reports), report)
    chances = [one.chance for one in _groups(reports[0])]
    for x, chance in enumerate(chances):
        label = "chance" if x == 0 else ""
        axes.hlines(100 * chance, x - 0.5, x + 0.5, color="k", ls=":", lw=1, label=label)
    axes.set_xticks(range(len(groups)), labels, rotation=25, ha="right")
    axes.set(ylim=(0, 100), ylabel="tie-split accuracy, %")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    figure.savefig(path, dpi=150)


def _draw(axes: Any, place: int, n_raters: int, report: RaterReport) -> None:
    bar = _SHARE / n_raters
    xs, heights, errors = [], [], []
    for x, figures in enumerate(_groups(report)):
        value = figures.split.value
        low, high = figures.split.over_items or (value, value)
        xs.append(x + (place - (n_raters - 1) / 2) * bar)
        heights.append(100 * value)
        errors.append((100 * max(0.0, value - low), 100 * max(0.0, high - value)))
    style = {"color": _COLOURS[place % len(_COLOURS)], "label": report.name.replace("$", r"\$")}
    whiskers = {"yerr": list(zip(*errors, strict=True)), "error_kw": {"lw": 1}}
    axes.bar(xs, heights, bar, **style, **whiskers)


def _groups(report: RaterReport) -> list[Figures]:
    return [*report.subsets.values(), report.mean]
