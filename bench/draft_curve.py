"""The curves of bench_drafting as a table and a picture.

pytest bench/bench_drafting.py --benchmark-json=RESULTS.json
python -m bench.draft_curve RESULTS.json --plot docs/figures/draft_curve.svg
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.report.page import Table, markdown_table
from bench.report.plots import lines, save


def break_even(points: Iterable[tuple[float, float]]) -> float | None:
    """The acceptance from which drafts save time, between measured points on a straight line.

    Args:
        points: acceptance, rising, and speed relative to no drafts.

    Returns:
        None where drafts cost time even at the highest acceptance.
    """
    curve = list(points)
    slow = [i for i, (_, speed) in enumerate(curve) if speed < 1]
    if not slow:
        return curve[0][0]
    if slow[-1] == len(curve) - 1:
        return None
    (a, below), (b, above) = curve[slow[-1]], curve[slow[-1] + 1]
    return a + (b - a) * (1 - below) / (above - below)


def table(curves: Sequence[dict[str, Any]]) -> Table:
    """A line a curve: speed relative to no drafts at each acceptance."""
    acceptances = [str(point["acceptance"]) for point in curves[0]["curve"]]
    rows = []
    for curve in curves:
        cells = [curve["shape"], str(curve["batch"]), _draft(curve)]
        cells += [f"{point['speed']:.2f}" for point in curve["curve"]]
        even = curve["break_even"]
        rows.append([*cells, "none" if even is None else f"{even:.2f}"])
    return Table(["shape", "batch", "draft", *acceptances, "break-even"], rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, help="pytest-benchmark's JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the curves")
    options = parser.parse_args(argv)
    infos = [row["extra_info"] for row in json.loads(options.results.read_text())["benchmarks"]]
    curves = [info for info in infos if "draft_length" in info]
    if not curves:
        parser.error(f"no curves in {options.results}: write it with bench/bench_drafting.py")
    print(markdown_table(table(curves)))
    if options.plot:
        series = {
            curve["series"]: [(point["acceptance"], point["speed"]) for point in curve["curve"]]
            for curve in curves
        }
        names = "share of drafted tokens that are right", "rewards/s relative to no drafts"
        save(lines(series, *names), options.plot)


def _draft(curve: dict[str, Any]) -> str:
    return "adaptive" if curve["draft_length"] is None else str(curve["draft_length"])


if __name__ == "__main__":
    main()
