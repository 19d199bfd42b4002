"""The report's plots as SVG elements that take the page's colour for text."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bench.report.figures import Point, Roof
from flipfast.errors import MissingDependencyError

# Colours that are told apart with any kind of vision (Okabe and Ito 2008), and on light and dark.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8c8c4a", "#9467bd")
_DASHES = ("-", "--", ":")
_INK = "#787877"  # stands for the colour of the page's text
_WIDTH = 8.5  # inches

Series = Mapping[str, Sequence[tuple[float, float]]]


def bars(values: Sequence[tuple[str, float, float, float]], x_name: str) -> str:
    """Horizontal bars from 1 on a logarithmic axis: twice as fast is as long as half as fast.

    Args:
        values: label, value, and the range that it is taken from, all above 0.
        x_name: of the axis.
    """
    figure, panel = _panel(0.32 * len(values) + 0.9)
    for place, (_, value, low, high) in enumerate(values):
        colour = _COLOURS[0] if value >= 1 else _COLOURS[5]
        panel.barh(place, value - 1, left=1, color=colour)
        if high > low:
            panel.plot([low, high], [place, place], color=_INK)
        panel.text(max(value, high, 1), place, f"  {value:.2f}", va="center", color=_INK)
    panel.axvline(1, color=_INK, linewidth=1)
    _label(panel, [label for label, *_ in values])
    _logarithmic(panel, x_name)
    return _svg(figure)


def lines(series: Series, x_name: str, y_name: str) -> str:
    """A line a series; an axis is logarithmic where sizes, or lines, lie far apart."""
    figure, panel = _panel(3.6)
    for at, (name, points) in enumerate(series.items()):
        colour, style = _COLOURS[at % len(_COLOURS)], _DASHES[at // len(_COLOURS) % len(_DASHES)]
        xs, ys = zip(*sorted(points), strict=True)
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
    return _svg(figure)


def stacked(parts: Sequence[tuple[str, Sequence[tuple[str, float]]]], n_named: int = 7) -> str:
    """A bar a run, of the shares of its stages; small ones are one part.

    Args:
        parts: a run's name, and name and share of each stage.
        n_named: stages that have a colour of their own.
    """
    totals: dict[str, float] = {}
    for _, stages in parts:
        for name, share in stages:
            totals[name] = totals.get(name, 0.0) + share
    named = sorted(totals, key=lambda name: -totals[name])[:n_named]
    figure, panel = _panel(max(0.45 * len(parts), 1.2) + 0.9)
    ends = [0.0] * len(parts)
    for name, colour in zip([*named, None], [*_COLOURS[:n_named], _INK], strict=False):
        shares = [
            100 * sum(share for stage, share in stages if _in(stage, name, named))
            for _, stages in parts
        ]
        label = _plain("the others" if name is None else name)
        panel.barh(range(len(parts)), shares, left=ends, color=colour, label=label)
        ends = [a + b for a, b in zip(ends, shares, strict=True)]
    _label(panel, [name for name, _ in parts])
    panel.set_xlabel("% of the run")
    _legend(panel)
    return _svg(figure)


def roofline(roofs: Sequence[Roof], points: Mapping[str, Sequence[Point]]) -> str:
    """Operations a second over operations a byte, under what the device can do.

    Source: Williams, Waterman and Patterson, "Roofline", 2009.
    """
    figure, panel = _panel(4.6)
    at = [point.intensity for found in points.values() for point in found]
    knees = [roof.flops_a_s / roof.bytes_a_s for roof in roofs]
    low, high = min([*at, *knees]) / 3, max([*at, *knees]) * 3
    for place, roof in enumerate(roofs):
        knee = knees[place]
        heights = [low * roof.bytes_a_s, roof.flops_a_s, roof.flops_a_s]
        style = _DASHES[place % len(_DASHES)]
        panel.plot([low, knee, high], heights, style, color=_INK, label=f"roof, {roof.dtype}")
    for place, (name, found) in enumerate(points.items()):
        panel.plot(
            [point.intensity for point in found],
            [point.flops_a_s for point in found],
            "os^Dv<>p"[place // len(_COLOURS) % 8],
            color=_COLOURS[place % len(_COLOURS)],
            alpha=0.8,
            markersize=5,
            label=_plain(name),
        )
    panel.set(xscale="log", yscale="log", xlim=(low, high))
    panel.set(xlabel="operations a byte", ylabel="operations a second")
    _legend(panel)
    return _svg(figure)


def latency(values: Sequence[tuple[str, float, float]]) -> str:
    """p50 and p99 in milliseconds of each label, on a logarithmic axis."""
    figure, panel = _panel(0.4 * len(values) + 1.2)
    for at, label in enumerate(("p50", "p99"), 1):
        xs = [value[at] for value in values]
        panel.plot(xs, range(len(values)), "oD"[at - 1], color=_COLOURS[5 * (at - 1)], label=label)
    for place, (_, p50, p99) in enumerate(values):
        panel.plot([p50, p99], [place, place], color=_INK, zorder=0)
    _label(panel, [label for label, *_ in values])
    _logarithmic(panel, "milliseconds")
    _legend(panel)
    return _svg(figure)


def _in(stage: str, name: str | None, named: Sequence[str]) -> bool:
    return stage == name if name is not None else stage not in named


def _label(panel: Any, labels: Sequence[str]) -> None:
    """Names of horizontal bars, the first on top."""
    panel.set_yticks(range(len(labels)), [_plain(label) for label in labels])
    panel.invert_yaxis()


def _logarithmic(panel: Any, x_name: str) -> None:
    """An axis of x with plain numbers, at 1, 2 and 5 of each power of ten."""
    from matplotlib import ticker

    panel.set(xscale="log", xlabel=_plain(x_name))
    panel.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:g}"))
    panel.xaxis.set_minor_locator(ticker.NullLocator())


def _legend(panel: Any) -> None:
    panel.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, labelcolor=_INK)


def _plain(text: str) -> str:
    """A text as it is: a dollar sign begins no formula."""
    return text.replace("$", r"\$")


def _panel(height: float) -> tuple[Any, Any]:
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            f"the report's plots need matplotlib, which cannot be imported ({error}): "
            "pip install 'flipfast[plot]'"
        ) from error
    colours = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    with rc_context({**dict.fromkeys(colours, _INK), "font.size": 9}):
        figure = Figure(figsize=(_WIDTH, max(height, 1.5)))
        panel = figure.subplots()
    figure.patch.set_alpha(0)
    panel.patch.set_alpha(0)
    panel.spines[["top", "right"]].set_visible(False)
    return figure, panel


def _svg(figure: Any) -> str:
    """The element alone, its text as text, without ids that another plot may have."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    # With a salt, what is left of ids are hashes of what they stand for.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "flipfast"}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    return text.replace(_INK, "currentColor")
