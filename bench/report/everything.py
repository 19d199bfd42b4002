"""The report's last section: every figure that a benchmark noted, group by group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.report.parts import Section, Table, number, words
from bench.report.rows import Row

_LISTS = ("curve", "stages")  # have tables of their own


def all_figures(rows: Sequence[Row]) -> Section:
    """A table a group of benchmarks and one of each curve's points."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.suite, row.group), []).append(row)
    tables = [
        _group(f"{suite} {group}", f"{suite.replace('_', ' ')}: {group}", found)
        for (suite, group), found in groups.items()
    ]
    tables += [_points(row) for row in rows if row.info.get("curve")]
    return Section("All figures", ["Seconds are medians."], tables)


def _points(row: Row) -> Table:
    """All that is known of a curve's points, drawn or not."""
    points = row.info["curve"]
    names = list(dict.fromkeys(name for point in points for name in point))
    cells = [[number(point.get(name)) for name in names] for point in points]
    key = f"points {row.suite} {row.name}"
    return Table(
        key,
        f"{row.suite.replace('_', ' ')}: points of {row.name}",
        [*map(words, names)],
        cells,
        folded=True,
    )


def _group(key: str, title: str, rows: Sequence[Row]) -> Table:
    flat = [dict(_flattened(row.figures)) for row in rows]
    names = list(dict.fromkeys(name for found in flat for name in found))
    cells = [
        [row.name, number(row.median_s), *(number(found.get(name)) for name in names)]
        for row, found in zip(rows, flat, strict=True)
    ]
    return Table(key, title, ["benchmark", "seconds", *map(words, names)], cells, folded=True)


def _flattened(known: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Names and values; those inside another have its name before theirs."""
    for name, value in known.items():
        if name in _LISTS:
            continue
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{name} ")
        elif isinstance(value, (list, tuple)):
            yield prefix + name, ", ".join(map(number, value))
        else:
            yield prefix + name, value
