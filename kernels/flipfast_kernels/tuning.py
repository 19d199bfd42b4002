"""Tuned launch configurations: where they are stored and which one applies to a shape.

Each file is for one device model. The user's own file, in a cache folder, takes precedence over the
packaged one; if neither has an entry near enough, the kernel's default rule applies. The choice may
depend on the weight's shape, the dtype and the device, never on the number of rows: an entry is a
pair of configurations, for few rows and for many, which give a row the same bits.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import torch

FORMAT = 1
PACKAGED = Path(__file__).with_name("tuning")
_TRITON: Any = import_module("triton")  # it has no type stubs

Bucket = Mapping[str, "int | str"]
Config = TypeVar("Config")

_log = logging.getLogger(__name__)
_chosen: list[Path] = []  # the file given to `use`, if any


def user_folder() -> Path:
    """The folder of a user's own files: ~/.cache/flipfast/tuning.

    Raises:
        RuntimeError: the home folder is unknown.
    """
    return Path.home() / ".cache" / "flipfast" / "tuning"


def file_name(device_name: str) -> str:
    """The name of a device's tuning file, such as nvidia-h200.json."""
    return re.sub(r"[^a-z0-9]+", "-", device_name.lower()).strip("-") + ".json"


def use(path: Path | None) -> None:
    """Read configurations from this file alone, or with None from the usual places again.

    Call it before the first launch: kernels cache what they chose for a shape.
    """
    _chosen[:] = [] if path is None else [path]
    entries.cache_clear()


def tuned_pair(
    kernel: str,
    device: torch.device,
    bucket: Bucket,
    make: Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[Config, Config]],
    *,
    reach: float,
) -> tuple[Config, Config] | None:
    """The tuned configurations, for few and for many rows, that are nearest to a shape.

    Args:
        kernel: its name in a tuning file.
        device: where it runs.
        bucket: the numbers and names that describe the shape.
        make: makes two checked configurations from two mappings of fields; raises ValueError or
            TypeError if something is wrong with them.
        reach: the largest allowed distance of an entry from the shape: the sum over the bucket's
            numbers of |log2(ours / theirs)|. Names must be equal.

    Returns:
        The pair, or None if no entry is near enough or the nearest one is invalid (logged).
    """
    if device.type != "cuda":
        return None
    found = nearest(entries(device).get(kernel, []), bucket, reach)
    if found is None:
        return None
    try:
        return make(found["few"], found["many"])
    except (KeyError, TypeError, ValueError) as error:
        _log.warning("the tuned entry of %s for %s is ignored: %s", kernel, dict(bucket), error)
        return None


def nearest(
    candidates: list[Mapping[str, Any]], bucket: Bucket, reach: float
) -> Mapping[str, Any] | None:
    """The entry with the nearest bucket within reach, the first if tied; see `tuned_pair`."""
    distances = [distance(entry["bucket"], bucket) for entry in candidates]
    best = min(distances, default=math.inf)
    return candidates[distances.index(best)] if best <= reach else None


def distance(theirs: Bucket, ours: Bucket) -> float:
    """Distance between two buckets (see `tuned_pair`); infinite if names or keys differ."""
    if theirs.keys() != ours.keys():
        return math.inf
    total = 0.0
    for key, value in ours.items():
        other = theirs[key]
        if isinstance(value, str) or isinstance(other, str):
            total += 0.0 if value == other else math.inf
        else:
            total += abs(math.log2(value / other))
    return total


@lru_cache(maxsize=16)
def entries(device: torch.device) -> dict[str, list[Mapping[str, Any]]]:
    """All entries for a CUDA device by kernel, the user's first; read once per process."""
    name = file_name(torch.cuda.get_device_name(device))
    merged: dict[str, list[Mapping[str, Any]]] = {}
    for path in _chosen or [*_user_files(name), PACKAGED / name]:
        for kernel, found in read(path).items():
            merged.setdefault(kernel, []).extend(found)
    return merged


def read(path: Path) -> dict[str, list[Mapping[str, Any]]]:
    """The entries of a file by kernel; empty, with a logged warning, if it is unusable here."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
        reason = _refusal(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
    if reason is not None:
        _log.warning("%s is ignored: %s; `flipfast tune` writes a new one", path, reason)
        return {}
    kernels: dict[str, list[Mapping[str, Any]]] = content["kernels"]
    return kernels


def write(
    path: Path,
    device_name: str,
    kernels: Mapping[str, list[dict[str, Any]]],
    date: str,
) -> None:
    """Write a file that `read` accepts on this device with these versions.

    Args:
        path: of the file; its folder is created.
        device_name: as torch names the device.
        kernels: by kernel, entries with "bucket", "few", "many" and any further fields.
        date: of the measurement, such as 2026-01-31.
    """
    content = {
        "format": FORMAT,
        "device": device_name,
        "date": date,
        "torch": torch.__version__,
        "triton": _TRITON.__version__,
        "kernels": kernels,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)  # a reader sees the old file or the new one


def _refusal(content: dict[str, Any]) -> str | None:
    """Why a file is unusable here, or None. Another compiler may generate other instructions."""
    if content["format"] != FORMAT:
        return f"its format is {content['format']}, not {FORMAT}"
    theirs, ours = (_release(version) for version in (content["triton"], _TRITON.__version__))
    if theirs != ours:
        return f"it was measured with triton {theirs}, this is {ours}"
    for kernel, found in content["kernels"].items():
        for entry in found:
            if not {"bucket", "few", "many"} <= entry.keys():
                return f"an entry of {kernel} has the fields {sorted(entry)}"
            numbers = [value for value in entry["bucket"].values() if not isinstance(value, str)]
            if not all(type(value) is int and value > 0 for value in numbers):
                return f"an entry of {kernel} has the bucket {entry['bucket']}"
    return None


def _release(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _user_files(name: str) -> list[Path]:
    try:
        return [user_folder() / name]
    except RuntimeError:  # no home folder
        return []
