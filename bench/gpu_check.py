"""What a CUDA device has to say about this version: tests, tuning, benchmarks of the kernels.

`make gpu-check` runs it; bench.gpu_bench measures all else. Each part has a time limit of its own,
and all of them together end within TOTAL_S; results go to bench/results/<device>/. A part that
fails does not stop the others; the exit code is 1 if any did, 2 where there is no device.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bench.facts import ROOT, device_folder, device_name, figures_of, versions

TOTAL_S = 430.0  # with two minutes for a build before it, nine in all
_GRACE_S = 15.0  # for a part that is told to stop
_SHOWN_LINES = 15


@dataclass(frozen=True)
class Part:
    """A command and the seconds that it may take."""

    name: str
    command: Sequence[str]
    limit_s: float


@dataclass(frozen=True)
class Outcome:
    """How a part went: "passed", "failed" or "stopped" at its limit; the last lines it printed."""

    name: str
    result: str
    seconds: float
    tail: list[str]


def main(argv: Sequence[str] | None = None) -> int:
    """Run every part and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "bench/results")
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("gpu-check: torch sees no CUDA device", file=sys.stderr)
        return 2
    folder = options.results / device_folder()
    folder.mkdir(parents=True, exist_ok=True)
    raw = folder / "pytest-benchmark.json"
    outcomes = run_parts(parts(folder, raw), TOTAL_S, ROOT)
    rows = kernel_rows(raw)
    raw.unlink(missing_ok=True)  # a hundred times the size of what is of use in it
    today = datetime.date.today().isoformat()
    facts = {"device": device_name("cuda"), **versions(), "date": today}
    content = {
        **facts,
        "parts": [asdict(outcome) for outcome in outcomes],
        "kernel_sources": kernel_sources(),
        "kernels": rows,
    }
    (folder / "kernels.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    (folder / "summary.md").write_text(summary(facts, outcomes, rows), "utf-8")
    print(f"gpu-check: results are in {folder}")
    return int(any(outcome.result != "passed" for outcome in outcomes))


def parts(folder: Path, raw: Path) -> list[Part]:
    """What is run, in this order; the last one takes the time that is left."""
    pytest = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"]
    tuning = folder / "tuning.json"
    own = [str(path) for path in gpu_tests(ROOT / "tests")]
    bench = ["bench/bench_kernels_gpu.py", f"--tuning={tuning}", f"--benchmark-json={raw}"]
    kernels = [
        "tests/kernels",
        "tests/engine/test_triton_path.py",
        "tests/engine/ops/test_triton_ops.py",
    ]
    kernels += ["tests/scoring/test_device_scoring.py", "--ignore=tests/kernels/test_compile.py"]
    kernels += ["-m", "not gpu"]
    tune = [sys.executable, "-m", "flipfast", "tune", "--quick", f"--out={tuning}"]
    return [
        Part("tests that need a device", [*pytest, "-m", "gpu", *own], 180),
        Part("tuning", tune, 120),
        Part("benchmarks of the kernels", [*pytest, *bench], 150),
        Part("the kernels' other tests, on the device", [*pytest, *kernels], TOTAL_S),
    ]


def gpu_tests(folder: Path) -> list[Path]:
    """Files with tests marked `gpu`, but for those that need a package that is not here."""
    found = []
    for path in sorted(folder.rglob("test_*.py")):
        text = path.read_text("utf-8")
        missing = "import hypothesis" in text or "from hypothesis" in text
        if "mark.gpu" in text and not (missing and not importlib.util.find_spec("hypothesis")):
            found.append(path)
    return found


def run_parts(
    todo: Sequence[Part], total_s: float, cwd: Path, *, title: str = "gpu-check"
) -> list[Outcome]:
    """Run one after the other; what would begin after the end of the time is stopped at once."""
    end = time.monotonic() + total_s
    outcomes = []
    for part in todo:
        limit = min(part.limit_s, end - time.monotonic())
        print(f"{title}: {part.name}, {max(limit, 0):.0f} s at most", flush=True)
        outcome = run_part(part, limit, cwd)
        print(f"{title}: {outcome.result} after {outcome.seconds:.0f} s", flush=True)
        outcomes.append(outcome)
    return outcomes


def run_part(part: Part, limit_s: float, cwd: Path) -> Outcome:
    """Run a part; at its limit it is interrupted, so that it can write what it has, then killed."""
    if limit_s <= 0:
        return Outcome(part.name, "stopped", 0.0, ["there was no time left"])
    started = time.monotonic()
    process = subprocess.Popen(
        part.command,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=_hear_interrupts,
    )
    try:
        text, _ = process.communicate(timeout=limit_s)
        result = "passed" if process.returncode == 0 else "failed"
    except subprocess.TimeoutExpired:
        result, text = "stopped", _stop(process)
    except BaseException:
        _signal(process, signal.SIGKILL)
        raise
    print(text, end="", flush=True)
    tail = text.splitlines()[-_SHOWN_LINES:]
    return Outcome(part.name, result, round(time.monotonic() - started, 1), tail)


def _hear_interrupts() -> None:
    """What a shell runs in the background ignores them, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _stop(process: subprocess.Popen[str]) -> str:
    _signal(process, signal.SIGINT)
    try:
        return process.communicate(timeout=_GRACE_S)[0]
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGKILL)
        return process.communicate()[0]


def _signal(process: subprocess.Popen[str], what: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
        os.killpg(process.pid, what)


def kernel_rows(raw: Path) -> list[dict[str, Any]]:
    """Name, group and figures of every benchmark in pytest-benchmark's file; none without it."""
    try:
        content = json.loads(raw.read_text("utf-8"))
    except (OSError, ValueError):
        return []
    return [
        {"name": row["name"], "group": row["group"], **figures_of(row["extra_info"])}
        for row in content["benchmarks"]
    ]


def kernel_sources() -> str:
    """A hash of the kernels and of what times them: equal ones need no timing again."""
    files = [*ROOT.glob("kernels/**/*.py"), *ROOT.glob("kernels/**/*.json")]
    cases = ("bench_kernels_gpu", "kernel_cases", "f1_cases")
    files += [ROOT / "bench" / f"{name}.py" for name in cases]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def summary(
    facts: dict[str, str], outcomes: Sequence[Outcome], rows: Sequence[dict[str, Any]]
) -> str:
    """A page to read: what ran, and a table of the kernels."""
    lines = [f"# {facts['device']}", "", "Written by `make gpu-check`.", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", "| part | result | seconds |", "|---|---|---|"]
    lines += [f"| {o.name} | {o.result} | {o.seconds:.0f} |" for o in outcomes]
    lines += ["", "Medians between CUDA events, the L2 cache overwritten before each call; shares"]
    lines += ["are of a copy's bandwidth in the same run.", ""]
    lines += ["| kernel | microseconds | GB/s | share of a copy | TFLOP/s | times as fast as |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in rows:
        peers = [
            f"{key.removeprefix('speed_over_')} {value:.2f}"
            for key, value in row.items()
            if key.startswith("speed_over_")
        ]
        numbers = [row.get(key, "") for key in ("us", "gb_per_s", "share_of_copy", "tflop_per_s")]
        cells = [row["name"].removeprefix("bench_"), *map(str, numbers), ", ".join(peers)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
