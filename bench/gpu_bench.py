"""All figures of a CUDA device: `make gpu-bench`.

Suites run in parts, the most valuable first, each with a time limit of its own, and all of them end
within TOTAL_S. A part that is stopped keeps what it had measured. Results go to
bench/results/<device>/benchmarks.json. The kernels are left out where `make gpu-check`, which tests
and tunes them, has timed the very same ones on this device; its figures are in kernels.json. The
exit code is 1 where a part failed or was stopped, 2 where there is no device.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.facts import ROOT, device_folder
from bench.gpu_check import TOTAL_S, Outcome, Part, kernel_sources, run_parts
from bench.results import read, store

MARK = "mark.gpu"
KERNELS = "bench_kernels_gpu"


@dataclass(frozen=True)
class Suites:
    """Benchmark files that run together.

    Attributes:
        name: of the part.
        files: names without `.py`; those that are in no part run last.
        limit_s: seconds that they may take.
    """

    name: str
    files: tuple[str, ...]
    limit_s: float


PARTS = (
    Suites("peers", ("bench_peers",), 160),
    Suites("rewards and stages", ("bench_reward", "bench_stages", "bench_profile"), 90),
    Suites("kernels", (KERNELS,), 80),
    Suites("workloads", ("bench_workloads",), 60),
    Suites(
        "scaling",
        ("bench_drafting", "bench_scaling", "bench_scaling_models", "bench_purity"),
        100,
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run every part and store what they measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, default=ROOT / "bench/results")
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("gpu-bench: torch sees no CUDA device", file=sys.stderr)
        return 2
    folder = options.results / device_folder()
    with tempfile.TemporaryDirectory(prefix="flipfast-bench-") as scratch:
        todo = list(parts(Path(scratch), kernels=not kernels_are_known(folder)))
        outcomes = run_parts(todo, TOTAL_S, ROOT, title="gpu-bench")
        files = [raw_of(Path(scratch), part.name) for part in todo]
        if any(map(read, files)):
            path = store([*files, _unfinished(outcomes, Path(scratch))], folder)
            print(f"gpu-bench: results are in {path}")
    for outcome in outcomes:
        print(f"gpu-bench: {outcome.name}: {outcome.result} after {outcome.seconds:.0f} s")
    return int(any(outcome.result != "passed" for outcome in outcomes))


def parts(scratch: Path, *, kernels: bool = True) -> Iterator[Part]:
    """What is run, in this order; what no part names takes the time that is left.

    Args:
        scratch: a folder for results and for models, of which only one part's are kept at a time.
        kernels: whether to time these, too.
    """
    named = {file for suites in PARTS for file in suites.files}
    others = Suites("all others", tuple(sorted(marked(ROOT / "bench") - named)), TOTAL_S)
    for suites in (*PARTS, others):
        files = [ROOT / "bench" / f"{file}.py" for file in suites.files]
        files = [path for path in files if path.exists()]
        if not files or (suites.files == (KERNELS,) and not kernels):
            continue
        pytest = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"]
        pytest += ["-m", "gpu", f"--basetemp={scratch / 'pytest'}", *map(str, files)]
        raw = raw_of(scratch, suites.name)
        yield Part(suites.name, [*pytest, f"--benchmark-json={raw}"], suites.limit_s)


def marked(folder: Path) -> set[str]:
    """Names of the suites that have benchmarks for a CUDA device."""
    return {path.stem for path in folder.glob("bench_*.py") if MARK in path.read_text("utf-8")}


def kernels_are_known(folder: Path) -> bool:
    """Whether a device's kernels.json has figures, and is of the kernels as they are here."""
    found = read(folder / "kernels.json")
    return bool(found.get("kernels")) and found.get("kernel_sources") == kernel_sources()


def raw_of(scratch: Path, name: str) -> Path:
    """Where pytest-benchmark writes what a part measures."""
    return scratch / f"{name.replace(' ', '-')}.json"


def _unfinished(outcomes: Sequence[Outcome], scratch: Path) -> Path:
    """A file that tells which parts are not whole, for the results to tell it."""
    rows = [
        {"name": outcome.name, "reason": f"{outcome.result} after {outcome.seconds:.0f} s"}
        for outcome in outcomes
        if outcome.result != "passed"
    ]
    path = scratch / "unfinished.json"
    path.write_text(json.dumps({"benchmarks": [], "skipped": rows}), "utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
