"""Stored runs as rows: what a report is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.facts import conditions_of, figures_of

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
        content: Run = json.loads(path.read_text("utf-8"))
        if not isinstance(content["benchmarks"], list):
            raise TypeError("no list of benchmarks")
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{path} is no run of benchmarks ({reason}): write one with `flipfast bench`"
        ) from error
    return content


def device_of(run: Run, rows: list[Row]) -> str:
    """The device that a run is about."""
    known = [str(row.info["device"]) for row in rows if "device" in row.info]
    return str(run.get("device") or (known or ["an unknown device"])[0])


def is_quick(run: Run) -> bool:
    """Whether it was one with `--quick`, whose figures stand for nothing."""
    return bool(run.get("machine_info", {}).get("sizes") == "quick")


def rows_of(run: Run) -> list[Row]:
    """The benchmarks of a run."""
    return [_row(found) for found in run["benchmarks"]]


def kernel_rows_beside(path: Path, known: list[Row]) -> list[Row]:
    """What `make gpu-check` measured on the device, where a run has no figures of its own.

    Args:
        path: of the stored run.
        known: the run's own rows.
    """
    beside = path.parent / KERNELS
    if not beside.is_file():
        return []
    content = json.loads(beside.read_text("utf-8"))
    facts = conditions_of(content)
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
