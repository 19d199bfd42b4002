"""The parts of a run on a CUDA device: their commands, order and time limits."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
# What a first kernel or graph breaks first; these processes also compile what later parts run.
FIRST = (
    "tests/kernels",
    "tests/engine/attention/test_gpu_backends.py",
    "tests/engine/test_cuda_graphs.py",
    "tests/backends/test_native.py",
    "tests/engine/test_purity.py",
)
# On a device these run as they run in Triton's interpreter elsewhere; nothing marks them.
UNMARKED = (
    "tests/kernels",
    "tests/engine/test_triton_path.py",
    "tests/engine/ops/test_fp8.py",
    "tests/engine/ops/test_triton_ops.py",
    "tests/scoring/test_device_scoring.py",
)


class Part(NamedTuple):
    """A command, and the seconds that it may take."""

    name: str
    limit_s: float
    command: Sequence[str]
    rehearsed: Sequence[str]  # the command without a device
    beside: Sequence[Sequence[str]] = ()  # commands that may run until the limit, without a verdict


def parts(out: Path, *, tune: bool, install: bool) -> list[Part]:
    """Everything that runs, the most valuable first; those of `tune` are another run.

    Args:
        out: gets the figures.
        tune: measure launch configurations, then what they bring.
        install: whether to install this checkout first.
    """
    first = [_install()] if install else []
    last = _keep(out)
    if tune:
        return [
            *first,
            _figures("device", 20.0, out),
            _figures("tuning", 105.0, out),
            _figures("kernels", 45.0, out),
            _figures("rewards", 30.0, out, "--shapes=qwen3-0.6b"),
            _tests("kernels' unmarked tests", 50.0, "not gpu", UNMARKED),
            last,
        ]
    return [
        *first,
        _figures("device", 20.0, out),
        _tests("first tests", 75.0, "gpu", FIRST)._replace(beside=_compiling()),
        _figures("checks", 25.0, out),
        _figures("path", 35.0, out),
        _figures("rewards", 105.0, out),
        _figures("steps", 20.0, out),
        _figures("kernels", 45.0, out),
        _tests("other tests", 45.0, "gpu", other_tests(ROOT / "tests")),
        last,
    ]


def other_tests(folder: Path) -> list[str]:
    """Files with tests marked `gpu` that are not among the first."""
    found = [path for path in sorted(folder.rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    names = [path.relative_to(folder.parent).as_posix() for path in found]
    return [name for name in names if not name.startswith((*FIRST, "tests/bench/"))]


def _figures(name: str, limit_s: float, out: Path, *more: str) -> Part:
    command = [sys.executable, "-m", "bench.gpu.part", f"--out={out}", *more, name]
    return Part(name, limit_s, command, [*command, "--rehearse"])


def _tests(name: str, limit_s: float, mark: str, paths: Sequence[str]) -> Part:
    """Side by side, as most of the time goes into compiling."""
    usual = ["-v", "--tb=short", "-p", "no:cacheprovider", "--ignore=tests/kernels/test_compile.py"]
    command = [sys.executable, "-m", "pytest", *usual, "-m", mark, *paths]
    return Part(name, limit_s, [*command, "-n", "12"], [*command, "--collect-only", "-q"])


def _compiling() -> list[list[str]]:
    """Rehearsals, which leave in Triton's cache most of what later parts launch."""
    later = [["checks"], ["path"], ["steps"], ["kernels"]]
    later += [[f"--shapes={shape}", "rewards"] for shape in ("qwen3-0.6b", "qwen3-8b")]
    command = [sys.executable, "-m", "bench.gpu.part", "--rehearse"]
    command += [f"--out={ROOT / 'build/gpu-compiled'}"]
    return [[*command, *words] for words in later]


def _install() -> Part:
    """With what is on the machine: no network, no other packages."""
    options = ["--no-build-isolation", "--no-deps", "--no-index", "-e", str(ROOT)]
    command = [sys.executable, "-m", "pip", "install", *options]
    return Part("install", 40.0, command, [*command, "--dry-run"])


def _keep(out: Path) -> Part:
    """The figures join those of their device's earlier runs."""
    run = ["bench.report", str(out / "benchmarks.json"), "--store", "--add"]
    command = [sys.executable, "-m", *run]
    return Part("results", 10.0, command, [*command, f"--out={out / 'stored'}"])


def environment(commit: str) -> dict[str, str]:
    """What every part's process needs: this checkout's packages, installed or not."""
    paths = (str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH"))
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUNBUFFERED": "1",  # what a part that is killed has said is in its log
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
        "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1),
        **({"FLIPFAST_COMMIT": commit} if commit else {}),
    }
