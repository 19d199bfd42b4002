"""Under which conditions a figure was measured."""

from __future__ import annotations

import functools
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("flipfast", "torch", "triton", "transformers")

ROOT = Path(__file__).resolve().parents[1]


@functools.cache
def versions() -> dict[str, str]:
    """Of flipfast with its commit, Python, and what the engine stands on.

    The commit is FLIPFAST_COMMIT where that is set: a copy of a checkout may have no history.
    """
    found = {"commit": os.environ.get("FLIPFAST_COMMIT") or _commit()}
    found |= {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return {**found, "cuda": torch.version.cuda or "none"}


def _commit() -> str:
    git = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:  # git is not installed
        return "unknown"
    return done.stdout.strip() or "unknown"


def conditions_of(info: Mapping[str, Any]) -> dict[str, str]:
    """Of what a benchmark noted, the conditions that it was measured under."""
    names = ("date", "device", "threads", "commit", "python", *PACKAGES, "cuda")
    return {name: str(info[name]) for name in names if name in info}


@functools.cache
def processor() -> str:
    """The CPU's name and the instructions that torch uses on it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{named[0] if named else platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def device_name(device: str) -> str:
    """What a device is called, `cpu` or `cuda`."""
    return torch.cuda.get_device_name() if device == "cuda" else processor()


def device_folder(name: str | None = None) -> str:
    """The name under bench/results of a device; None is the one that this machine has most to say
    about.
    """
    name = name or device_name("cuda" if torch.cuda.is_available() else "cpu")
    kept = "".join(c if c.isalnum() else "-" for c in name.lower().replace("(r)", ""))
    return "-".join(part for part in kept.split("-") if part)


def peak_memory_mib(device: str) -> int:
    """Most memory that this process has had; on CUDA what its torch has held, 0 for nothing."""
    if device == "cuda":
        return int(torch.cuda.max_memory_reserved()) >> 20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB, in bytes on a Mac
    return peak >> (20 if sys.platform == "darwin" else 10)
