"""The report's pictures, as figures of matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flipfast.errors import MissingDependencyError

# Colours that are told apart with any kind of vision (Okabe and Ito 2008).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8c8c4a", "#9467bd")
_STYLES = ("-", "--", ":")
_WIDTH = 8.5  # inches

Points = Mapping[str, Sequence[tuple[float, float]]]


def lines(series: Points, x_name: str, y_name: str) -> Any:
    """A line a series; an axis is logarithmic where sizes, or lines, lie far apart."""
    figure, panel = _panel(3.6)
    for at, (name, points) in enumerate(series.items()):
        style = _STYLES[at // len(COLOURS) % len(_STYLES)]
        xs, ys = zip(*sorted(points), strict=True)
        colour = COLOURS[at % len(COLOURS)]
        panel.plot(xs, ys, style, marker=".", color=colour, label=_plain(name))
    xs = sorted({x for points in series.values() for x, _ in points})
    if xs[0] > 0 and xs[-1] > 10 * xs[0]:
        panel.set_xscale("log", base=2)
        panel.set_xticks(xs, [f"{x:g}" for x in xs])
    tops = [max(y for _, y in points) for points in series.values()]
    if min(y for points in series.values() for _, y in points) > 0 and max(tops) > 20 * min(tops):
        panel.set_yscale("log")
    else:
        panel.set_ylim(bottom=0)
    panel.set(xlabel=_plain(x_name), ylabel=_plain(y_name))
    _legend(panel)
    return figure


def roofline(roofs: Mapping[str, tuple[float, float]], points: Points) -> Any:
    """Operations a second over operations a byte, under what the device can do.

    Source: Williams, Waterman and Patterson, "Roofline", 2009.

    Args:
        roofs: bytes and operations a second, by dtype.
        points: by where they come from.
    """
    figure, panel = _panel(4.6)
    at = [x for found in points.values() for x, _ in found]
    at += [flops_a_s / bytes_a_s for bytes_a_s, flops_a_s in roofs.values()]
    low, high = min(at) / 3, max(at) * 3
    for style, (dtype, (bytes_a_s, flops_a_s)) in zip(_STYLES * 9, roofs.items(), strict=False):
        xs = [low, flops_a_s / bytes_a_s, high]
        ys = [low * bytes_a_s, flops_a_s, flops_a_s]
        panel.plot(xs, ys, style, color="0.4", label=f"roof, {dtype}")
    for place, (name, found) in enumerate(points.items()):
        colour = COLOURS[place % len(COLOURS)]
        panel.plot(*zip(*found, strict=True), "o", color=colour, ms=5, label=_plain(name))
    panel.set(xscale="log", yscale="log", xlim=(low, high))
    panel.set(xlabel="operations a byte", ylabel="operations a second")
    _legend(panel)
    return figure


def _legend(panel: Any) -> None:
    panel.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)


def save(figure: Any, path: Path) -> None:
    """Write an SVG, its text as text; the same figure gives the same file."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "flipfast"}):
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


def _plain(text: str) -> str:
    """A text to read, in which a dollar sign begins no formula."""
    return text.replace("_per_s", "/s").replace("_", " ").replace("$", r"\$")


def _panel(height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            f"the report's plots need matplotlib, which cannot be imported ({error}): "
            "pip install 'flipfast[plot]'"
        ) from error
    figure = Figure(figsize=(_WIDTH, max(height, 1.5)))
    panel = figure.subplots()
    panel.spines[["top", "right"]].set_visible(False)
    return figure, panel
