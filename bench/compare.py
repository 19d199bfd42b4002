"""Did a change make anything slower? `make bench-compare`, or `python -m bench.compare`.

Two revisions run the same benchmarks in turns on this machine, now: the working tree, and an older
commit with the working tree's benchmarks. What looks slower runs again before it counts as such.
The exit code is 1 where something got slower than the noise of the same runs explains, or a
benchmark of the working tree failed; 2 where nothing could be compared.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from bench.facts import ROOT
from bench.sides import Run, Side, default_base, git, prepare, run_benchmarks
from bench.sizes import COMPARED
from bench.verdicts import Comparison, compare

PAIRS, PAIRS_TO_JUDGE = 5, 9
MINUTES = 6.0  # five for the first runs on two cores, and the rest for those that look slower
OUT = ROOT / ".benchmarks" / "compare.json"
LOUD = 0.1  # noise above this hides what a user would call slower

Comparisons = dict[str, Comparison]


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print a table, write JSON."""
    options = _parse(argv)
    end = time.monotonic() + 60 * options.minutes
    base = git("rev-parse", "--short=12", options.base or default_base())
    with tempfile.TemporaryDirectory(prefix="flipfast-compare-") as folder:
        old, new = prepare(base, Path(folder))
        print(f"{base} against the working tree, {options.pairs} pairs of runs", flush=True)
        first = alternate(old, new, options.benchmarks, options.pairs)
        found, problems = comparisons(*first), problems_of(*first, options.benchmarks)
        suspects = sorted(name for name, one in found.items() if one.suspicious)
        judged: Comparisons = {}
        if suspects:
            print(f"again, as they look slower: {', '.join(map(short, suspects))}", flush=True)
            again = alternate(old, new, suspects, PAIRS_TO_JUDGE, min_pairs=PAIRS, end=end)
            judged = comparisons(*again)
    report = {"base": base, "first": as_json(found), "judged": as_json(judged)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({**report, "problems": problems}, indent=1) + "\n", "utf-8")
    print(table(found, judged, problems))
    failed = any(kind == "failed" for kind, _ in problems.values())
    slower = any(one.slower for one in judged.values())
    return 1 if failed or slower else 0 if found else 2


def alternate(
    old: Side,
    new: Side,
    benchmarks: Sequence[str],
    n_pairs: int,
    *,
    min_pairs: int = 0,
    end: float = 0.0,
) -> tuple[list[Run], list[Run]]:
    """Run old, new, old, ..., new, old, each in a process of its own.

    Args:
        n_pairs: of runs, besides the old one that comes last.
        min_pairs: where it is given, no more than these begin after `end` (time.monotonic).
    """
    runs = [run_benchmarks(old, benchmarks)], [run_benchmarks(new, benchmarks)]
    runs[0].append(run_benchmarks(old, benchmarks))
    while len(runs[1]) < n_pairs:
        if min_pairs and len(runs[1]) >= min_pairs and time.monotonic() > end:
            break
        runs[1].append(run_benchmarks(new, benchmarks))
        runs[0].append(run_benchmarks(old, benchmarks))
    return runs


def comparisons(old: Sequence[Run], new: Sequence[Run]) -> Comparisons:
    """Of the benchmarks that every run measured."""
    names = set.intersection(*(set(run.seconds) for run in (*old, *new)))
    return {
        name: compare(
            [run.seconds[name] for run in old],
            [run.seconds[name] for run in new],
        )
        for name in sorted(names)
    }


def problems_of(
    old: Sequence[Run], new: Sequence[Run], asked: Sequence[str]
) -> dict[str, tuple[str, str]]:
    """Why a benchmark was not compared: "failed", "new" or "skipped", and a line about it.

    Args:
        asked: what was to run; what nothing is known of has "failed".
    """
    found: dict[str, tuple[str, str]] = {}
    for kind, reasons in (
        ("new", (reason for run in old for reason in run.failed.items())),
        ("skipped", (reason for run in (*old, *new) for reason in run.skipped.items())),
        ("failed", (reason for run in new for reason in run.failed.items())),
    ):
        found.update({name: (kind, line) for name, line in reasons})
    known = [*found, *(name for run in new for name in run.seconds)]
    for name in asked:
        in_file = name.partition("::")[0] in found  # which could not be imported
        if not in_file and not any(other.startswith(name) for other in known):
            found[name] = ("failed", "there is no such benchmark")
    return found


def verdict(first: Comparison, judged: Comparison | None) -> str:
    """In a word or three."""
    last = judged or first
    if judged and judged.slower:
        return "SLOWER"
    if last.faster:
        return "faster"
    return "too noisy to tell" if last.noise > LOUD else "same"


def table(found: Comparisons, judged: Comparisons, problems: dict[str, tuple[str, str]]) -> str:
    """A line a benchmark; where it ran again, of those runs."""
    rows = [("benchmark", "old ms", "new ms", "ratio", "noise", "pairs", "verdict")]
    for name, first in found.items():
        one = judged.get(name, first)
        times = (f"{1e3 * one.old:.4g}", f"{1e3 * one.new:.4g}")
        noise = f"{100 * one.noise:.0f} %"
        word = verdict(first, judged.get(name))
        rows.append((short(name), *times, f"{one.ratio:.3f}", noise, str(one.n_pairs), word))
    lines = list(_aligned(rows))
    lines += [f"{short(name)}: {kind}, {line}" for name, (kind, line) in problems.items()]
    return "\n".join(lines)


def short(name: str) -> str:
    """A benchmark's name without its folder."""
    return name.removeprefix("bench/").replace(".py::", "::")


def as_json(found: Comparisons) -> dict[str, dict[str, float]]:
    """What is written of each."""
    return {name: asdict(one) for name, one in found.items()}


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells: Iterable[str] = (c.rjust(w) for c, w in zip(others, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *cells])


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "benchmarks", nargs="*", help="files or pytest ids, in place of bench.sizes.COMPARED"
    )
    parser.add_argument(
        "--base", help="the older commit: by default the last one that differs from the files here"
    )
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of runs at first (default 5)")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="after which no more runs are added"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="JSON (default .benchmarks)")
    options = parser.parse_args(argv)
    options.benchmarks = options.benchmarks or list(COMPARED)
    if options.pairs < 2:
        parser.error(f"--pairs {options.pairs}: noise needs two pairs at least")
    return options


if __name__ == "__main__":
    sys.exit(main())
