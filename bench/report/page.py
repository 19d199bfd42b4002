"""A stored run as one HTML page and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.report.parts import Plot, Section, Table
from bench.report.rows import device_of, kernel_rows_beside, read_run, rows_of
from bench.report.sections import sections_of


def write_report(run: Path, folder: Path) -> list[Path]:
    """Write report.html, which needs no other file, and report.md.

    Args:
        run: as bench.results.store or pytest-benchmark has written it.
        folder: where to; it is made if it is not there.

    Returns:
        What was written.

    Raises:
        ValueError: the file is no run of benchmarks.
        MissingDependencyError: matplotlib is not installed.
    """
    title, sections = load_sections(run)
    pages = {"report.html": html(title, sections), "report.md": markdown(title, sections)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (folder / name).write_text(text, "utf-8")
    return [folder / name for name in pages]


def load_sections(path: Path) -> tuple[str, list[Section]]:
    """The title and the sections of a run's report, with the kernels' figures that lie beside it.

    Raises:
        ValueError: the file is no run of benchmarks.
    """
    run = read_run(path)
    rows = rows_of(run)
    rows += kernel_rows_beside(path, rows)
    return f"flipfast on {device_of(run, rows)}", sections_of(run, rows)


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
