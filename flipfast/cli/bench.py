"""`flipfast bench`: runs a checkout's benchmarks, stores their figures, writes their report."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from flipfast.errors import ConfigError, FlipfastError, MissingDependencyError

_FAILED = 1  # pytest's exit code if a benchmark failed and the others ran


def run_benchmarks(
    *,
    quick: bool,
    gpu: bool,
    only: Sequence[str],
    groups: str | None,
    report: bool,
    run: str | None,
    out: str | None,
) -> None:
    """Run the benchmarks and store their figures for this device.

    Running some suites, or only the CUDA part, replaces their figures and keeps all others.

    Args:
        quick: use small sizes and few rounds; stored separately.
        gpu: run only what needs a CUDA device.
        only: names of suites, such as `text_core` for bench/bench_text_core.py; empty runs all.
        groups: a JSONL file with the workloads' rows; None uses the checkout's.
        report: whether to write report.md and its pictures next to the stored run.
        run: the file of an earlier run: write its report and run nothing; None for none.
        out: a folder for all output; None for bench/results/<device> of the checkout.

    Raises:
        ConfigError: there is no checkout, CUDA device or such suite.
        MissingDependencyError: pytest-benchmark or, with `report`, matplotlib is not installed.
        FlipfastError: a benchmark failed; the figures of the others have been stored.
    """
    root = _checkout()
    _check_packages(report or run is not None)
    where = _path("--out", out)
    if run is not None:
        _report(root, [str(Path(run).resolve()), "--page", *where])
        return
    selected = [*_selected(root, only, gpu), *_path("--groups", groups), *_flag("--quick", quick)]
    keep = ["--store", *_flag("--add", gpu or bool(only)), *_flag("--page", report), *where]
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "run.json"
        code = _python(root, ["-m", "pytest", *selected, f"--benchmark-json={found}"])
        if not found.exists():
            raise FlipfastError(f"nothing was measured: pytest ended with {code}, see above")
        _report(root, [str(found), *keep])
    if code:
        what = "a benchmark failed" if code == _FAILED else f"pytest ended with {code}"
        raise FlipfastError(f"{what}, see above; the figures of the others are stored")


def _checkout() -> Path:
    """Return the folder that holds this package and the benchmarks."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "bench" / "conftest.py").is_file():
        raise ConfigError(
            f"{root} holds no benchmarks: they come with the source. Get it with git clone, then "
            "`pip install -e '.[bench,plot]'` in its folder"
        )
    return root


def _check_packages(report: bool) -> None:
    for name in ("pytest", "pytest_benchmark", *(["matplotlib"] if report else [])):
        if find_spec(name) is None:
            extra = "plot" if name == "matplotlib" else "bench"
            raise MissingDependencyError(
                f"{name} is not installed: pip install 'flipfast[{extra}]'"
            )


def _report(root: Path, arguments: Sequence[str]) -> None:
    if _python(root, ["-m", "bench.report", *arguments]):
        raise FlipfastError("the figures could not be stored or drawn, see above")


def _path(option: str, path: str | None) -> list[str]:
    """Return an option with an absolute path, for a command that runs in another folder."""
    return [] if path is None else [f"{option}={Path(path).resolve()}"]


def _flag(option: str, given: bool) -> list[str]:
    return [option] if given else []


def _selected(root: Path, only: Sequence[str], gpu: bool) -> list[str]:
    """Return pytest's arguments to select the benchmarks."""
    known = sorted(path.stem.removeprefix("bench_") for path in root.glob("bench/bench_*.py"))
    for name in only:
        if name not in known:
            raise ConfigError(f"there is no suite {name!r}: there are {', '.join(known)}")
    if gpu:
        import torch

        if not torch.cuda.is_available():
            raise ConfigError("--gpu: torch sees no CUDA device")
    paths = [f"bench/bench_{name}.py" for name in only] or ["bench"]
    return [*paths, *(["-m", "gpu"] if gpu else [])]


def _python(root: Path, arguments: Sequence[str]) -> int:
    """Run this Python in the checkout, with output to this terminal; returns the exit code."""
    return subprocess.run([sys.executable, *arguments], cwd=root, check=False).returncode
