"""What a CUDA device has to say: `make gpu-check`, or `python -m bench.gpu check`; `bench` as well.

`check` runs the tests that need a device, tunes the kernels and times them; `bench` runs all other
benchmarks for a device. All parts end within TOTAL_S, and one that is stopped at its limit keeps
what it had measured. Figures are added to bench/results/<device>/benchmarks.json. The exit code is
1 where a part failed or was stopped, 2 where there is no device.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from bench.facts import ROOT, device_folder
from bench.results import FILE, store

TOTAL_S = 430.0  # with two minutes for a build before it, nine in all
GRACE_S = 15.0  # for a part that is told to stop
KERNELS = "bench_kernels_gpu"
SUITES = {  # that run together, and the seconds they may take; others run last
    "peers": (("bench_peers",), 160.0),
    "rewards": (("bench_reward",), 60.0),
    "workloads": (("bench_workloads",), 90.0),
    "scaling": (("bench_drafting", "bench_scaling"), 120.0),
}


class Part(NamedTuple):
    """A command and the seconds that it may take."""

    name: str
    command: Sequence[str]
    limit_s: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run every part and store what was measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu")
    parser.add_argument("what", choices=("check", "bench"))
    parser.add_argument("--results", type=Path, default=ROOT / "bench/results")
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print(f"gpu-{options.what}: torch sees no CUDA device", file=sys.stderr)
        return 2
    folder, end = options.results / device_folder(), time.monotonic() + TOTAL_S
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = []
    with tempfile.TemporaryDirectory(prefix="flipfast-gpu-") as scratch:
        parts = check_parts if options.what == "check" else bench_parts
        for part in parts(Path(scratch), folder):
            limit_s = min(part.limit_s, end - time.monotonic())
            print(f"gpu-{options.what}: {part.name}, {max(limit_s, 0):.0f} s at most", flush=True)
            result = run_part(part.command, limit_s)
            print(f"gpu-{options.what}: {part.name}: {result}", flush=True)
            if result != "passed":
                unfinished.append({"name": part.name, "reason": result})
        told = Path(scratch) / "unfinished.json"
        told.write_text(json.dumps({"benchmarks": [], "skipped": unfinished}), "utf-8")
        found = sorted(Path(scratch).glob("raw-*.json"))
        if found:
            print(f"results: {store([folder / FILE, *found, told], folder)}")
    return int(bool(unfinished))


def check_parts(scratch: Path, folder: Path) -> list[Part]:
    """Tests, tuning, kernels; the last one takes the time that is left."""
    tuning = folder / "tuning.json"
    tests = [*map(str, gpu_tests(ROOT / "tests"))]
    kernels = ["tests/kernels", "--ignore=tests/kernels/test_compile.py", "-m", "not gpu"]
    kernels += ["tests/engine/test_triton_path.py", "tests/engine/ops/test_triton_ops.py"]
    kernels += ["tests/scoring/test_device_scoring.py"]
    tune = [sys.executable, "-m", "flipfast", "tune", "--quick", f"--out={tuning}"]
    raw = f"--benchmark-json={scratch / 'raw-kernels.json'}"
    timed = [f"bench/{KERNELS}.py", f"--tuning={tuning}", raw]
    return [
        Part("tests that need a device", _pytest("-m", "gpu", *tests), 180.0),
        Part("tuning", tune, 120.0),
        Part("benchmarks of the kernels", _pytest(*timed), 150.0),
        Part("the kernels' other tests, on the device", _pytest(*kernels), TOTAL_S),
    ]


def bench_parts(scratch: Path, _: Path) -> list[Part]:
    """All suites with a mark but the kernels'."""
    marked = {p.stem for p in ROOT.glob("bench/bench_*.py") if "mark.gpu" in p.read_text("utf-8")}
    others = marked - {KERNELS} - {file for files, _ in SUITES.values() for file in files}
    todo = {**SUITES, **({"others": (tuple(sorted(others)), TOTAL_S)} if others else {})}
    options = ["-m", "gpu", f"--basetemp={scratch / 'pytest'}"]  # one part's models at a time
    parts = []
    for name, (files, limit_s) in todo.items():
        paths = [f"bench/{file}.py" for file in files]
        raw = f"--benchmark-json={scratch / f'raw-{name}.json'}"
        parts.append(Part(name, _pytest(*options, raw, *paths), limit_s))
    return parts


def _pytest(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]


def gpu_tests(folder: Path) -> list[Path]:
    """Files with tests marked `gpu`, but for those that need a package that is not here."""
    texts = {path: path.read_text("utf-8") for path in sorted(folder.rglob("test_*.py"))}
    lacking = () if importlib.util.find_spec("hypothesis") else ("hypothesis import", "import hypo")
    gpu = [path for path, text in texts.items() if "mark.gpu" in text]
    return [path for path in gpu if not any(word in texts[path] for word in lacking)]


def run_part(command: Sequence[str], limit_s: float) -> str:
    """Run a command; at its limit it is interrupted, so that it can write what it has, then killed.
    "passed", or why not.
    """
    if limit_s <= 0:
        return "stopped: there was no time left"
    started = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, preexec_fn=_hear_interrupts
    )
    try:
        result = "failed" if process.wait(limit_s) else "passed"
    except subprocess.TimeoutExpired:
        result = "stopped"
        os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):  # all of it has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return result if result == "passed" else f"{result} after {time.monotonic() - started:.0f} s"


def _hear_interrupts() -> None:
    """What a shell runs in the background ignores them, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
