"""One run's figures in a folder of its device: what pytest-benchmark wrote, without raw timings."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.facts import device_name, versions

FILE = "benchmarks.json"


def store(parts: Sequence[Path], folder: Path) -> Path:
    """Merge pytest-benchmark's files into one, which `pytest-benchmark compare` takes as well.

    Args:
        parts: its JSON files, or files written here; one that is missing, or was cut off while it
            was written, counts as empty. Where two have a benchmark the later one's is kept.
        folder: gets `benchmarks.json`, in place of an older one, and is made if it is not there.
    """
    contents = [content for content in map(read, parts) if content]
    rows = {row["fullname"]: row for content in contents for row in content["benchmarks"]}
    for row in rows.values():
        row["stats"].pop("data", None)  # each round's time, a hundred times what is of use
    newest = contents[-1] if contents else {}  # which may be another machine's
    shared = ("machine_info", "commit_info", "datetime", "version")  # of all parts of a run
    merged = {
        "device": newest.get("device")
        or device_name("cuda" if torch.cuda.is_available() else "cpu"),
        "date": newest.get("date") or datetime.date.today().isoformat(),
        "versions": newest.get("versions") or versions(),
        **{key: content[key] for content in contents[::-1] for key in shared if key in content},
        "skipped": [row for content in contents for row in content.get("skipped", [])],
        "benchmarks": list(rows.values()),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(merged, indent=1) + "\n", "utf-8")
    return folder / FILE


def read(path: Path) -> dict[str, Any]:
    """The content of such a file, empty where it is missing or broken."""
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError):
        return {}
