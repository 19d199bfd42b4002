"""The plot of `flipfast agree`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flipfast.errors import ConfigError, MissingDependencyError
from flipfast.quality.agreement import Agreement, Groups, best_places

# How a response is drawn: neither's best, the first's best only, the best of both. Blue and orange
# are distinguishable with any kind of color vision (Okabe and Ito 2008).
_KINDS = (
    ("other responses", {"c": "0.7", "s": 8, "alpha": 0.6}),
    ("best of the first alone", {"c": "#D55E00", "s": 16, "alpha": 0.6}),
    ("best of both", {"c": "#0072B2", "s": 16, "alpha": 0.6}),
)
_INCHES = 3.4  # side of a panel


def check_plot(path: str) -> None:
    """Check, before anything is scored, that a plot can be drawn.

    Raises:
        ConfigError: the path's suffix is no known image format.
        MissingDependencyError: matplotlib is not installed.
    """
    known = _figure().canvas.get_supported_filetypes()
    if Path(path).suffix.lower().removeprefix(".") not in known:
        raise ConfigError(f"--plot {path}: the suffix must be one of {', '.join(sorted(known))}")


def save_plot(
    path: str,
    first: tuple[str, Groups],
    others: Sequence[tuple[str, Groups]],
    found: Sequence[Agreement],
) -> None:
    """Draw a panel per variant: its rewards over those of the first, one point per response.

    Args:
        path: the file to write, in the format of its suffix.
        first: name of the base reward, and its groups.
        others: names and groups of the variants.
        found: how each variant agrees with the first.
    """
    figure = _figure(figsize=(_INCHES * len(others), _INCHES + 0.6), layout="constrained")
    panels = figure.subplots(1, len(others), squeeze=False)[0]
    for panel, (name, groups), against in zip(panels, others, found, strict=True):
        for kind, points in zip(_KINDS, _points(first[1], groups), strict=True):
            label, style = kind
            panel.scatter(*zip(*points, strict=True) if points else ((), ()), label=label, **style)
        panel.set(xlabel=first[0], ylabel=name.replace(",", ",\n"), title=_title(against))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=150)


def _points(first: Groups, second: Groups) -> list[list[tuple[float, float]]]:
    """Return both rewards of each response that has both, by kind."""
    kinds: list[list[tuple[float, float]]] = [[] for _ in _KINDS]
    for a, b in zip(first, second, strict=True):
        best, both = best_places(a), best_places(a) & best_places(b)
        for place, (x, y) in enumerate(zip(a, b, strict=True)):
            if x is not None and y is not None:
                kinds[(place in best) + (place in both)].append((x, y))
    return kinds


def _title(against: Agreement) -> str:
    shown = [
        f"{name} {value:.2f}"
        for name, value in (("Kendall", against.kendall), ("same best", against.same_best))
        if value is not None
    ]
    return ", ".join(shown)


def _figure(**how: Any) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            f"a plot needs matplotlib, which cannot be imported ({error}): "
            "pip install 'flipfast[plot]'"
        ) from error
    return Figure(**how)
