"""A stored run as one HTML page and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.report.results import device_of, kernel_rows_beside, read_run, rows_of
from bench.report.sections import Plot, Section, Table, sections_of


def write_report(stored: Path) -> list[Path]:
    """Write report.html, which needs no other file, and report.md beside a stored run.

    Args:
        stored: the run, as bench.report.results.store has written it.

    Returns:
        What was written.

    Raises:
        ValueError: the file is no run of benchmarks.
        MissingDependencyError: matplotlib is not installed.
    """
    title, sections = load_sections(stored)
    pages = {"report.html": html(title, sections), "report.md": markdown(title, sections)}
    for name, text in pages.items():
        (stored.parent / name).write_text(text, "utf-8")
    return [stored.parent / name for name in pages]


def load_sections(stored: Path) -> tuple[str, list[Section]]:
    """The title and the sections of a stored run's report."""
    run = read_run(stored)
    rows = rows_of(run)
    rows += kernel_rows_beside(stored, rows)
    return f"flipfast on {device_of(run)}", sections_of(run, rows)


def html(title: str, sections: Sequence[Section]) -> str:
    """One page with everything in it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    template = environment.get_template("page.html.jinja")
    return template.render(title=title, sections=sections, svg=_svg)


def markdown(title: str, sections: Sequence[Section]) -> str:
    """The tables and sentences of the page; its plots are in the page alone."""
    parts = [f"# {title}", "Plots: report.html."]
    for section in sections:
        parts += [f"## {section.title}", *section.text]
        for table in section.tables:
            parts += [f"### {table.title}"] if table.title else []
            parts.append(markdown_table(table))
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """Lines of cells between bars."""
    lines = [_line(table.head), _line(["---"] * len(table.head)), *map(_line, table.rows)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    """Characters that mean something to Markdown or HTML inside a cell lose their meaning."""
    escapes = {ord(c): f"\\{c}" for c in "\\|`*[]"} | {ord("<"): "&lt;", ord("\n"): " "}
    return f"| {' | '.join(cell.translate(escapes) for cell in cells)} |"


def _svg(plot: Plot) -> Markup:
    from bench.report import plots

    draw = getattr(plots, plot.function)
    return Markup(draw(*plot.arguments))  # matplotlib has escaped its text
