"""What a report consists of, before it is HTML or Markdown, and how figures are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Cells = Sequence[str]


@dataclass(frozen=True)
class Table:
    """Cells as text.

    Attributes:
        key: its name for markers, unique in a report.
        title: "" for that of the section.
        head, rows: cells.
        folded: whether it opens on a click.
    """

    key: str
    title: str
    head: Cells
    rows: Sequence[Cells]
    folded: bool = False


@dataclass(frozen=True)
class Plot:
    """A picture: a function of bench.report.plots, which needs matplotlib, and what it is given."""

    title: str
    function: str
    arguments: Sequence[Any]


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()


def number(value: object) -> str:
    """A figure to read: four digits that count, thousands apart; other values as text."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def percent(share: float | None) -> str:
    """A share, of which 1 is all; nothing for none."""
    return "" if share is None else f"{100 * share:.1f} %"


def words(name: str) -> str:
    """A figure's name to read."""
    return name.replace("_per_s", "/s").replace("_", " ")
