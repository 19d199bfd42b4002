"""The plot of `flipfast consistency`."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from flipfast.quality.consistency import Comparison, InstructionMatrix, SeedNoise
from flipfast.quality.consistency.seeds import rewards_by_response

# Distinguishable with any kind of color vision (Okabe and Ito 2008).
_COLORS = ("#0072B2", "#D55E00", "#009E73")
_INCHES = 4.2  # side of a panel

Bars = Sequence[tuple[str, Sequence["float | None"]]]  # a label, and a height for each group


def save_plot(
    path: str,
    matrix: InstructionMatrix | str,
    wordings: Comparison,
    seeds: SeedNoise | str,
    formats: Comparison,
) -> None:
    """Draw a panel per comparison; one without a result says why.

    Args:
        path: the file to write, in the format of its suffix; see check_plot.
        matrix, wordings, seeds, formats: the results, or why there is none.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 * _INCHES, 2 * _INCHES), layout="constrained")
    panels = figure.subplots(2, 2).flat
    _draw(next(panels), "Metric of instruction and inversion", matrix, _matrix)
    _draw(next(panels), "Prompts", wordings, _wordings)
    _draw(next(panels), "Seeds", seeds, _seeds)
    _draw(next(panels), "Number formats", formats, _formats)
    figure.savefig(path, dpi=150)


def _draw(panel: Any, title: str, answer: Any, draw: Any) -> None:
    panel.set_title(title)
    if isinstance(answer, str):
        panel.text(0.5, 0.5, answer, ha="center", va="center", wrap=True)
        panel.set_axis_off()
    else:
        draw(panel, answer)


def _matrix(panel: Any, matrix: InstructionMatrix) -> None:
    panel.set(xlabel="group whose response is inverted", ylabel="group of the instruction")
    panel.set_facecolor("0.8")  # shown for a failed inversion, which has no values
    if matrix.values.size:
        image = panel.imshow(matrix.values, cmap="viridis", interpolation="nearest")
        panel.figure.colorbar(image, ax=panel, shrink=0.8)
    for axis in (panel.xaxis, panel.yaxis):
        axis.get_major_locator().set_params(integer=True)


def _wordings(panel: Any, found: Comparison) -> None:
    agreements = [one.agreement for one in found.changes]
    bars: Bars = [
        ("Spearman", [one.spearman for one in agreements]),
        ("Kendall", [one.kendall for one in agreements]),
        ("same best", [one.same_best for one in agreements]),
    ]
    _bars(panel, [f"{one.first},\n{one.second}" for one in found.changes], bars)


def _seeds(panel: Any, found: SeedNoise) -> None:
    """Draw a point per response."""
    sampled = [rewards for group in rewards_by_response(found.runs) for rewards in group]
    points = [(fmean(rewards), stdev(rewards)) for rewards in sampled if len(rewards) > 1]
    blue, orange, _ = _COLORS
    if points:
        panel.scatter(*zip(*points, strict=True), c=blue, s=14, alpha=0.6, label="a response")
    if found.signal is not None:
        panel.axhline(found.signal, c=orange, ls="--", label="between a group's responses")
    panel.set(xlabel="mean reward over seeds", ylabel="standard deviation")
    _legend(panel)


def _formats(panel: Any, found: Comparison) -> None:
    bars: Bars = [
        ("equal bits", [one.bit_equal for one in found.changes]),
        ("rank flips", [one.flips.share for one in found.changes]),
        ("same best", [one.agreement.same_best for one in found.changes]),
    ]
    _bars(panel, [f"{one.second}\nfor {one.first}" for one in found.changes], bars)


def _bars(panel: Any, groups: Sequence[str], bars: Bars) -> None:
    width = 0.8 / len(bars)
    for i, (label, heights) in enumerate(bars):
        places = [place + (i - (len(bars) - 1) / 2) * width for place in range(len(groups))]
        known = [float("nan") if height is None else height for height in heights]
        panel.bar(places, known, width, label=label, color=_COLORS[i])
    panel.set_xticks(range(len(groups)), groups, fontsize="small")
    panel.axhline(0, c="0.5", lw=0.8)
    _legend(panel)


def _legend(panel: Any) -> None:
    """Put the legend below the panel, where it hides nothing."""
    handles, labels = panel.get_legend_handles_labels()
    if handles:
        panel.legend(
            handles,
            labels,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.16),
            ncols=3,
            fontsize="small",
        )
