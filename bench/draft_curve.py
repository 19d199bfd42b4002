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

# Of draft lengths; colours that are told apart with any kind of vision (Okabe and Ito 2008).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_INCHES = 2.8  # a panel's side


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


def read_curves(path: Path) -> list[dict[str, Any]]:
    """What bench_drafting noted for each curve, in the order of the file."""
    rows = json.loads(path.read_text("utf-8"))["benchmarks"]
    return [row["extra_info"] for row in rows if "draft_length" in row["extra_info"]]


def table(curves: Sequence[dict[str, Any]]) -> str:
    """A Markdown table: a line a curve, speed relative to no drafts at each acceptance."""
    acceptances = [point["acceptance"] for point in curves[0]["curve"]]
    head = ["shape", "device", "batch", "draft", *map(str, acceptances), "break-even"]
    lines = [_line(head), _line(["---"] * len(head))]
    for curve in curves:
        cells = [curve["shape"], curve["device"], str(curve["batch"]), _draft(curve)]
        cells += [f"{point['speed']:.2f}" for point in curve["curve"]]
        even = curve["break_even"]
        lines.append(_line([*cells, "none" if even is None else f"{even:.2f}"]))
    return "\n".join(lines)


def save_plot(curves: Sequence[dict[str, Any]], path: Path) -> None:
    """A row of panels a shape and device, one for each batch size, a line a draft length."""
    from matplotlib.figure import Figure

    rows = list(dict.fromkeys((curve["shape"], curve["device"]) for curve in curves))
    batches = sorted({curve["batch"] for curve in curves})
    drafts = list(dict.fromkeys(_draft(curve) for curve in curves))
    size = (_INCHES * len(batches), _INCHES * len(rows) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(rows), len(batches), squeeze=False, sharex=True, sharey="row")
    for curve in curves:
        row = rows.index((curve["shape"], curve["device"]))
        panel = panels[row][batches.index(curve["batch"])]
        x = [point["acceptance"] for point in curve["curve"]]
        y = [point["speed"] for point in curve["curve"]]
        draft = _draft(curve)
        panel.plot(x, y, ".-", color=_COLOURS[drafts.index(draft)], label=f"draft: {draft}")
        panel.set_title(f"{curve['shape']}, batch {curve['batch']}", fontsize="medium")
    for panel in panels.flat:
        if panel.has_data():
            panel.axhline(1, color="0.6", linewidth=0.8, zorder=0)
        else:
            panel.set_visible(False)
    figure.supxlabel("share of drafted tokens that are right", fontsize="medium")
    figure.supylabel("rewards/s relative to no drafts", fontsize="medium")
    lines = {line.get_label(): line for panel in panels.flat for line in panel.get_lines()[:-1]}
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=len(lines))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, nargs="+", help="pytest-benchmark's JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the curves")
    options = parser.parse_args(argv)
    curves = [curve for path in options.results for curve in read_curves(path)]
    if not curves:
        parser.error(f"no curves in {options.results[0]}: write it with bench/bench_drafting.py")
    print(table(curves))
    if options.plot:
        save_plot(curves, options.plot)


def _draft(curve: dict[str, Any]) -> str:
    return "adaptive" if curve["draft_length"] is None else str(curve["draft_length"])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
