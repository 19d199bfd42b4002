"""A stored run as Markdown with pictures: what benchmarks noted in `extra_info`, found by its name.

| noted | becomes |
|---|---|
| `rewards_per_s`; a workload in the group's or benchmark's name | a line of the headline |
| `speed_over_PEER`; in a peer's own benchmark `flipfast_speedup` | a ratio |
| `settings`, `peer` | a peer's settings |
| `curve`, a list of points; `x_name`, `y_name`, `series` | a line of the group's plot |
| `load`, with `rewards_per_s`, `steps`, `share_of_floor` | a line of the engine's table |
| `us` | a line of the kernels' table |
| `host_ms`, the fastest, and `median_host_ms` a step | a line of the host's table |
| `p50_ms`, `p90_ms`, `p99_ms`, `rate` | a latency |
| `gflop_per_s` or `tflop_per_s`, with `gb_per_s` | a point in the roofline |
| `copy_gb_per_s`, `product_gflop_per_s`, `dtype` | the roof |

All figures of a run, with those that are not named here: `pytest-benchmark compare RUN.json`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench.facts import conditions_of

WORKLOADS = ("rl-step", "best-of-n", "long", "stream")

Run = dict[str, Any]
Curves = dict[str, dict[str, list[tuple[float, float]]]]  # points by series, by "Y against X"


class Table(NamedTuple):
    """Cells as text."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_report(path: Path, folder: Path) -> list[Path]:
    """Write report.md and the pictures that it shows; the paths of what was written.

    Raises:
        ValueError: the file is no run of benchmarks.
        MissingDependencyError: matplotlib is not installed.
    """
    from bench.report import plots

    run = read_run(path)
    known, found = tables(run), curves(run)
    pictures = {
        name: plots.lines(series, *name.split(" against ")[::-1]) for name, series in found.items()
    }
    for device, roofs in roofs_of(run).items():
        pictures[f"roofline of {device}"] = plots.roofline(roofs, points_of(run, device))
    folder.mkdir(parents=True, exist_ok=True)
    lines, written = [f"# flipfast on {run.get('device', 'an unknown device')}"], []
    if run.get("machine_info", {}).get("sizes") == "quick":
        lines.append("Measured with --quick: no figure here stands for anything.")
    for name in dict.fromkeys([*known, *pictures]):
        lines += [f"## {name[0].upper()}{name[1:]}", *filter(None, [TEXTS.get(name.split()[0])])]
        if name in pictures:
            file = "".join(c if c.isalnum() else "-" for c in name.lower()) + ".svg"
            plots.save(pictures[name], folder / file)
            written.append(folder / file)
            lines.append(f"![{name}]({file})")
        lines += [markdown_table(known[name])] if name in known else []
    (folder / "report.md").write_text("\n\n".join(lines) + "\n", "utf-8")
    return [folder / "report.md", *written]


TEXTS = {
    "ratios": "Times as fast as each peer: above 1 flipfast is the faster one. Both did the same "
    "requests in the same run. Of several benchmarks the median, with least and most.",
    "host": "The host's time for a step, while a device computes the one before; none took part.",
    "latency": "Of single requests, counted from when each was due.",
    "roofline": "The roof is a copy's bandwidth and the rate of torch's own square product, "
    "measured in the same run. What lies in a cache can beat it.",
}


def read_run(path: Path) -> Run:
    """A run, as pytest-benchmark wrote it or as it was stored.

    Raises:
        ValueError: the file cannot be read, or is no such run.
    """
    try:
        content: Run = json.loads(path.read_text("utf-8"))
        if not isinstance(content["benchmarks"], list):
            raise TypeError("no list of benchmarks")
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{path} is no run of benchmarks ({reason}): write one with `flipfast bench`"
        ) from error
    return content


def tables(run: Run) -> dict[str, Table]:
    """All tables that there is something to say in, by their names; conditions always."""
    known = {
        "conditions": _conditions(run),
        "headline": _headline(run),
        "engine": _engine(run),
        "ratios": _ratios(run),
        "kernels": _kernels(run),
        "host": _host(run),
        "settings": _settings(run),
        "did not run": _skipped(run),
        "latency": _latency(run),
    }
    return {name: table for name, table in known.items() if table.rows}


def _conditions(run: Run) -> Table:
    found: dict[str, Counter[str]] = {}
    for one in run["benchmarks"]:
        for name, value in conditions_of(one["extra_info"]).items():
            found.setdefault(name, Counter())[value] += 1
    rows = []
    for name, values in found.items():
        several = [f"{value} ({n} benchmarks)" for value, n in values.most_common()]
        rows.append([name, "; ".join(several if len(values) > 1 else values)])
    rows += [["benchmarks", number(len(run["benchmarks"]))]]
    return Table(["", ""], [*rows, ["written by", f"pytest-benchmark {run.get('version', '')}"]])


def _headline(run: Run) -> Table:
    """Whole rewards of flipfast, with the device where there are several."""
    rows = []
    for name, group, info in _benchmarks(run):
        if "rewards_per_s" not in info or "peer" in info or group.startswith("peers"):
            continue
        workload = next((x for x in WORKLOADS if x in f"{group} {name}"), None)
        model = info.get("shape", "embedded")
        speed = info.get("tokens_per_s", info.get("output_tokens_per_s")) or None
        cells = [workload, model, info.get("style"), name, info.get("device")]
        rows += [[*map(number, [*cells, info["rewards_per_s"], speed])]] if workload else []
    head = ["workload", "model", "style", "benchmark", "device", "rewards/s", "tokens/s"]
    if len({row[4] for row in rows}) < 2:
        head, rows = head[:4] + head[5:], [row[:4] + row[5:] for row in rows]
    return Table(head, rows)


def _engine(run: Run) -> Table:
    """Large shapes with random weights on a CUDA device."""
    rows = []
    for _, _, info in _benchmarks(run):
        if "load" in info:
            bits = "batch-invariant" if info["deterministic"] else "fast"
            if info.get("weights") == "fp8":
                bits += ", 8-bit weights"
            cells = [info["shape"], info["load"], bits, info["rewards_per_s"]]
            cells += [info["tokens_per_s"], info["share_of_floor"]]
            rows += [[*map(number, cells), f"{info['mixed_steps']:,} of {info['steps']:,}"]]
    head = ["model", "load", "bits", "rewards/s", "tokens/s", "share of the floor", "mixed steps"]
    return Table(head, rows)


def _kernels(run: Run) -> Table:
    rows = []
    for name, _, info in _benchmarks(run):
        if "us" in info:
            peers = [
                f"{k.removeprefix('speed_over_')} {number(v)}"
                for k, v in info.items()
                if k.startswith("speed_over_")
            ]
            figures = (info["us"], info.get("tflop_per_s"), info.get("share_of_copy"))
            rows += [[name, *map(number, figures), ", ".join(peers)]]
    return Table(["kernel", "µs", "TFLOP/s", "share of a copy", "times as fast as"], rows)


def _host(run: Run) -> Table:
    names = ("host_ms", "median_host_ms")
    rows = [
        [name, *(number(info[key]) for key in names)]
        for name, _, info in _benchmarks(run)
        if "host_ms" in info
    ]
    return Table(["benchmark", "ms a step, fastest round", "median"], rows)


def _ratios(run: Run) -> Table:
    found: dict[tuple[str, str], list[float]] = {}
    for name, group, info in _benchmarks(run):
        for key, value in info.items():
            if key == "flipfast_speedup":
                found.setdefault((group, str(info.get("peer", name))), []).append(value)
            elif key.startswith("speed_over_"):
                found.setdefault((group, key.removeprefix("speed_over_")), []).append(value)
    rows = [
        [*key, number(median(x)), f"{number(min(x))} to {number(max(x))}" if len(x) > 1 else ""]
        for key, x in found.items()
    ]
    return Table(["requests", "peer", "times as fast", "range"], rows)


def _settings(run: Run) -> Table:
    found = {
        str(info.get("peer", name)): "; ".join(f"{k}: {v}" for k, v in info["settings"].items())
        for name, _, info in _benchmarks(run)
        if "settings" in info
    }
    return Table(["peer", "settings"], [*map(list, found.items())])


def _skipped(run: Run) -> Table:
    counted = Counter(row["reason"] for row in run.get("skipped", ()))
    return Table(["why", "benchmarks"], [[why, number(n)] for why, n in counted.items()])


def _latency(run: Run) -> Table:
    names = ("rate", "p50_ms", "p90_ms", "p99_ms")
    rows = [
        [name, *(number(info.get(key)) for key in names)]
        for name, _, info in _benchmarks(run)
        if "p50_ms" in info
    ]
    return Table(["benchmark", "rows/s asked", "p50 ms", "p90 ms", "p99 ms"], rows)


def curves(run: Run) -> Curves:
    """Curves; lines of the same name are one."""
    found: Curves = {}
    for name, _, info in _benchmarks(run):
        x, y = info.get("x_name"), info.get("y_name")
        for point in info.get("curve", ()):
            lines = found.setdefault(f"{y} against {x}", {})
            lines.setdefault(info.get("series", name), []).append((point[x], point[y]))
    return found


def roofs_of(run: Run) -> dict[str, dict[str, tuple[float, float]]]:
    """By device and dtype bytes and operations a second, of the last that was measured."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for _, _, info in _benchmarks(run):
        if "copy_gb_per_s" in info:
            roof = 1e9 * info["copy_gb_per_s"], 1e9 * info["product_gflop_per_s"]
            found.setdefault(info["device"], {})[info["dtype"]] = roof
    return found


def points_of(run: Run, device: str) -> dict[str, list[tuple[float, float]]]:
    """What was achieved: operations a byte and a second, by the first word of the group."""
    found: dict[str, list[tuple[float, float]]] = {}
    for _, group, info in _benchmarks(run):
        flops = info.get("gflop_per_s", 0.0) + 1e3 * info.get("tflop_per_s", 0.0)
        if info.get("device") == device and flops and info.get("gb_per_s"):
            point = (flops / info["gb_per_s"], 1e9 * flops)
            found.setdefault(group.split()[0], []).append(point)
    return found


def markdown_table(table: Table) -> str:
    """Lines of cells between bars, in which nothing means anything to Markdown or HTML."""
    escapes = {ord(c): f"\\{c}" for c in "\\|`*[]"} | {ord("<"): "&lt;", ord("\n"): " "}
    rows = [table.head, ["---"] * len(table.head), *table.rows]
    return "\n".join(f"| {' | '.join(x.translate(escapes) for x in row)} |" for row in rows)


def number(value: object) -> str:
    """A figure to read: four digits that count, thousands apart; other values as text."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _benchmarks(run: Run) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Names and groups without "bench_", and what was noted."""
    for one in run["benchmarks"]:
        name = one["name"].removeprefix("bench_")
        yield name, one["group"] or name, one["extra_info"]
