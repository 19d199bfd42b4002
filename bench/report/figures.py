"""What kinds of figures a run's benchmarks have, found by the names that they note them under.

| noted in `extra_info` | becomes |
|---|---|
| `rewards_per_s`; a workload in `workload`, the group or the name | a line of the headline |
| `speed_over_PEER`; in a peer's own benchmark `flipfast_speedup` | a ratio |
| `settings`, a mapping; `peer` | settings of the peer |
| `curve`, a list of points; `x_name`, `y_name`, `series` | a line of the group's plot |
| `p50_ms`, `p99_ms`; `p90_ms`, `rate` | a latency |
| `stages`, see bench_profile | a profile, with points in the roofline |
| `tflop_per_s` or `gflop_per_s`, with `gb_per_s` or `mbytes` a call | a point in the roofline |

All of them, and whatever else is noted, stand in the tables of the last section too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.report.rows import Row
from bench.sizes import FULL

_SPEED = "speed_over_"  # with a peer's name behind it, beside flipfast's own figures
_SPEEDUP = "flipfast_speedup"  # beside a peer's figures
_PEERS = "peers"  # the suite whose rows are peers', and ours between theirs
_WAITS = "wait for tokens"  # a device's stages are the time itself


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as a peer flipfast is, on the same requests in the same run."""

    row: Row
    peer: str
    value: float


@dataclass(frozen=True)
class Point:
    """What a benchmark or a stage achieved.

    Attributes:
        name: of it.
        intensity: operations a byte.
        flops_a_s: operations a second.
    """

    name: str
    intensity: float
    flops_a_s: float


@dataclass(frozen=True)
class Roof:
    """What a device can do: bytes and operations a second, and the numbers of its products."""

    dtype: str
    bytes_a_s: float
    flops_a_s: float


def workload_of(row: Row) -> str | None:
    """The workload that a benchmark of whole rewards ran, None for any other."""
    if "rewards_per_s" not in row.info or is_peer(row):
        return None
    named = row.info.get("workload")
    if named:
        return str(named)
    text = f"{row.group} {row.name}"
    return next((name for name in FULL.workloads if name in text), None)


def is_peer(row: Row) -> bool:
    """Whether what was timed is another's work."""
    return row.suite == _PEERS or "peer" in row.info or _SPEEDUP in row.info


def ratios(rows: Sequence[Row]) -> list[Ratio]:
    """Those over every peer."""
    found = []
    for row in rows:
        for name, value in row.info.items():
            if not _is_number(value) or value <= 0:
                continue
            if name == _SPEEDUP:
                found.append(Ratio(row, str(row.info.get("peer", row.name)), float(value)))
            elif name.startswith(_SPEED):
                found.append(Ratio(row, name.removeprefix(_SPEED), float(value)))
    return found


def curves(rows: Sequence[Row]) -> dict[tuple[str, str, str], dict[str, list[tuple[float, float]]]]:
    """Points by series, by (group, name of x, name of y)."""
    found: dict[tuple[str, str, str], dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        if not row.info.get("curve"):
            continue
        x, y = (str(row.info.get(f"{axis}_name", axis)) for axis in "xy")
        series = str(row.info.get("series", row.name))
        known = [(point.get(x), point.get(y)) for point in row.info["curve"]]
        points = [(float(a), float(b)) for a, b in known if _is_number(a) and _is_number(b)]
        if points:
            lines = found.setdefault((row.group, x, y), {})
            lines.setdefault(series, []).extend(points)
    return found


def latencies(rows: Sequence[Row]) -> list[Row]:
    """Benchmarks of single requests."""
    return [row for row in rows if _is_number(row.info.get("p50_ms"))]


def profiles(rows: Sequence[Row]) -> list[Row]:
    """Runs with their stages."""
    return [row for row in rows if row.info.get("stages")]


def costs(row: Row) -> list[Mapping[str, Any]]:
    """A profile's stages, the largest first, without time that is spent waiting for others."""
    return [stage for stage in row.info["stages"] if stage["name"] != _WAITS]


def roofs(rows: Sequence[Row]) -> dict[str, list[Roof]]:
    """By device, for each kind of numbers; medians of what profiles measured."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in profiles(rows):
        found.setdefault(row.info["device"], {}).setdefault(row.info["dtype"], []).append(row)
    return {
        device: [
            Roof(
                dtype,
                1e9 * median(row.info["copy_gb_per_s"] for row in measured),
                1e9 * median(row.info["product_gflop_per_s"] for row in measured),
            )
            for dtype, measured in kinds.items()
        ]
        for device, kinds in found.items()
    }


def points(rows: Sequence[Row], device: str) -> dict[str, list[Point]]:
    """What was achieved on a device, by where it comes from: groups of benchmarks, profiles."""
    found: dict[str, list[Point]] = {}
    for row in rows:
        if row.info.get("device") != device:
            continue
        if row.info.get("stages"):
            found[f"stages, {row.info['profile']}"] = list(_stage_points(row))
        point = _kernel_point(row)
        if point is not None:
            found.setdefault(row.group.split()[0], []).append(point)
    return found


def _stage_points(row: Row) -> Iterator[Point]:
    for stage in row.info["stages"]:
        if stage["bytes"] and stage["flops"] and stage["seconds"]:
            intensity = stage["flops"] / stage["bytes"]
            yield Point(stage["name"], intensity, stage["flops"] / stage["seconds"])


def _kernel_point(row: Row) -> Point | None:
    info = row.info
    flops = 1e12 * info.get("tflop_per_s", 0.0) or 1e9 * info.get("gflop_per_s", 0.0)
    n_bytes = 1e9 * info.get("gb_per_s", 0.0)
    if not n_bytes and row.median_s:
        n_bytes = 1e6 * info.get("mbytes", 0.0) / row.median_s
    return Point(row.name, flops / n_bytes, flops) if flops and n_bytes else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
