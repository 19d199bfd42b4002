"""Stored runs: pytest-benchmark's JSON without its lists of single times, one file a device."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.facts import ROOT, figures_of

RESULTS = ROOT / "bench" / "results"
STORED = "benchmarks.json"
KERNELS = "kernels.json"  # what bench.gpu_check writes

Run = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A benchmark.

    Attributes:
        suite: its file's name without "bench_".
        name: of the function with its parameters, without "bench_".
        group: what it competes with.
        median_s: of a call, seconds; None where only other figures are known.
        info: all that it noted.
    """

    suite: str
    name: str
    group: str
    median_s: float | None
    info: Mapping[str, Any]

    @property
    def figures(self) -> dict[str, Any]:
        """What it noted, but for the conditions that it was measured under."""
        return figures_of(self.info)


def read_run(path: Path) -> Run:
    """A run, as pytest-benchmark wrote it or as it was stored.

    Raises:
        ValueError: the file cannot be read, or is no such run.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content["benchmarks"], list) or not content["datetime"]:
            raise TypeError("no benchmarks")
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{path} is no run of benchmarks ({reason}): write one with --benchmark-json"
        ) from error
    return content  # type: ignore[no-any-return]


def device_of(run: Run) -> str:
    """The folder of the device that a run is about.

    Raises:
        ValueError: the run does not say.
    """
    found = run.get("machine_info", {}).get("device")
    if not found:
        raise ValueError("the run does not name its device: it is not one of `pytest bench`")
    return str(found)


def is_quick(run: Run) -> bool:
    """Whether it was one with `--quick`, whose figures stand for nothing."""
    return bool(run.get("machine_info", {}).get("sizes") == "quick")


def folder_of(run: Run, results: Path = RESULTS) -> Path:
    """Where a run is stored; one with `--quick` does not take the place of a whole one."""
    folder = results / device_of(run)
    return folder / "quick" if is_quick(run) else folder


def trimmed(raw: Run) -> Run:
    """A run without single times and CPU flags; each benchmark gets its date."""
    machine = dict(raw["machine_info"])
    machine["cpu"] = {k: v for k, v in machine.get("cpu", {}).items() if k != "flags"}
    date = str(raw["datetime"])[:10]
    rows = [
        {
            **row,
            "extra_info": {"date": date, **row["extra_info"]},
            "stats": {k: v for k, v in row["stats"].items() if k != "data"},
        }
        for row in raw["benchmarks"]
    ]
    return {**raw, "machine_info": machine, "benchmarks": rows}


def merged(old: Run, new: Run) -> Run:
    """A run of some benchmarks over an earlier one, of which the others are kept."""
    names = {row["fullname"] for row in new["benchmarks"]}
    kept = [row for row in old["benchmarks"] if row["fullname"] not in names]
    skipped = {one["name"]: one for one in [*old.get("skipped", ()), *new.get("skipped", ())]}
    return {
        **new,
        "benchmarks": [*kept, *new["benchmarks"]],
        "skipped": list(skipped.values()),
    }


def store(raw: Path, folder: Path | None = None, *, add: bool = False) -> Path:
    """Keep a run as its device's one.

    Args:
        raw: what pytest-benchmark wrote.
        folder: where to; None for bench/results/<device>, and its `quick` for such runs.
        add: keep the benchmarks of the run that is there and that this one has not.

    Returns:
        The stored file.

    Raises:
        ValueError: the file is no run of `pytest bench`.
    """
    run = trimmed(read_run(raw))
    path = (folder or folder_of(run)) / STORED
    if add and path.exists():
        run = merged(read_run(path), run)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run, indent=1) + "\n", "utf-8")
    return path


def rows_of(run: Run) -> list[Row]:
    """The benchmarks of a run."""
    return [_row(found) for found in run["benchmarks"]]


def kernel_rows_beside(path: Path, known: list[Row]) -> list[Row]:
    """What `make gpu-check` measured on the device, where a run has no newer figures of it.

    Args:
        path: of the stored run.
        known: the run's own.
    """
    beside = path.parent / KERNELS
    if not beside.is_file():
        return []
    content = json.loads(beside.read_text("utf-8"))
    facts = {key: value for key, value in content.items() if isinstance(value, str)}
    names = {row.name for row in known}
    rows = [
        Row("kernels_gpu", _short(name), group, None, {**facts, **info})
        for name, group, info in map(_named, content["kernels"])
    ]
    return [row for row in rows if row.name not in names]


def _row(found: Mapping[str, Any]) -> Row:
    suite = Path(str(found["fullname"]).partition("::")[0]).stem
    group = found["group"] or _short(suite).replace("_", " ")
    median = found["stats"].get("median")
    return Row(_short(suite), _short(found["name"]), group, median, found["extra_info"])


def _named(found: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    rest = {key: value for key, value in found.items() if key not in ("name", "group")}
    return found["name"], found["group"], rest


def _short(name: str) -> str:
    return name.removeprefix("bench_")
