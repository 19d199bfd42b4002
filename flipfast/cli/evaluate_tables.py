"""The tables that `flipfast eval` prints, and the lines below them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from flipfast.quality.evaluation import Figures, RaterReport
from flipfast.quality.evaluation.intervals import Interval


def by_subset(reports: Sequence[RaterReport]) -> Table:
    """Return the accuracies, with a row per subset and a column per rater."""
    table = _table("Accuracy in %: strict/tie-split", ["", "items"], reports)
    first = reports[0]
    for subset in first.subsets:
        _add_figures(table, subset, [report.subsets[subset] for report in reports])
    if len(first.subsets) > 1:
        table.add_section()
        _add_figures(table, "mean", [report.mean for report in reports])
        _add_figures(table, "all as one", [report.overall for report in reports])
    return table


def by_rater(reports: Sequence[RaterReport]) -> Table:
    """Return all figures per rater, as means over subsets, and their cost."""
    table = _table("Means over subsets in %", [""], reports)
    seeds = any(len(report.seeds) > 1 for report in reports)
    for cells in zip(*(_column(report, seeds) for report in reports), strict=True):
        table.add_row(cells[0][0], *(text for _, text in cells))
    return table


def failures(report: RaterReport) -> str:
    """Return a line about responses without a score; "" if all have one."""
    without: Counter[str] = Counter()
    first_error = None
    for run in report.runs:
        for scores, statuses, errors in zip(run.scores, run.statuses, run.errors, strict=True):
            for score, status, error in zip(scores, statuses, errors, strict=True):
                if score is None:
                    without[status] += 1
                    first_error = first_error or error
    if not without:
        return ""
    shown = ", ".join(f"{n} {status}" for status, n in without.most_common())
    reason = f" ({first_error})" if first_error else ""
    return f"{report.name}: {without.total()} responses without a score: {shown}{reason}"


def counts(report: RaterReport) -> str:
    """Return a line with the rater's additional counts; "" if it has none."""
    shown = ", ".join(f"{name} {n}" for name, n in report.counts.items())
    return shown and f"{report.name}: {shown}"


def _table(title: str, labels: Sequence[str], reports: Sequence[RaterReport]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for label in labels:
        justify: JustifyMethod = "right" if label else "left"
        table.add_column(
            label,
            justify=justify,
            overflow="fold",
            min_width=5 if label else 12 if len(labels) > 1 else 17,
        )
    for report in reports:
        # Put a rater's options below its name: they are too long for one line of a column.
        header = Text(report.name.replace(":", ":\n", 1).replace(",", ",\n"))
        table.add_column(header, justify="right", overflow="fold")
    return table


def _add_figures(table: Table, name: str, figures: Sequence[Figures]) -> None:
    cells = [f"{_percent(one.strict.value)}/{_percent(one.split.value)}" for one in figures]
    table.add_row(Text(name), str(figures[0].n_items), *cells)


def _column(report: RaterReport, seeds: bool) -> Iterator[tuple[str, str]]:
    """Yield a rater's cells with the labels of their rows."""
    found, cost = report.mean, report.cost
    for label, figure in (
        ("strict", found.strict),
        ("tie-split", found.split),
        ("pairs won", found.pairs),
        ("length-controlled", found.length_controlled),
    ):
        yield label, _percent(figure.value)
        if figure is not found.length_controlled:
            yield "  over items", _range(figure.over_items)
        if seeds:
            yield "  over seeds", _range(figure.over_seeds)
    yield "ties for the top", _percent(found.tie_rate)
    yield "no score", _percent(found.failure_rate)
    yield "runs", str(len(report.seeds))
    yield "tokens in", f"{cost.n_prompt_tokens:,}"
    yield "tokens out", f"{cost.n_output_tokens:,}"
    yield "seconds", f"{cost.seconds:.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _range(interval: Interval | None) -> str:
    return "" if interval is None else f"{_percent(interval[0])}-{_percent(interval[1])}"
