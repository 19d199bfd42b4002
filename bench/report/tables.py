"""Tables of stored runs inside Markdown files, between markers.

    <!-- bench:NAME DEVICE -->
    <!-- /bench -->

NAME is a table of the device's report, such as `headline` or `costs`; DEVICE a folder of
bench/results. `python -m bench.report.tables` writes what belongs there, and nothing where the
device has no stored run; `--check` only says which tables differ.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.facts import ROOT
from bench.report.page import markdown_table, read_run, tables
from bench.results import FILE

RESULTS = ROOT / "bench" / "results"

_MARKED = re.compile(
    r"(?P<begin><!-- bench:(?P<name>[^>]*?) (?P<device>[\w.-]+) -->\n)"
    r"(?P<table>.*?)(?P<end><!-- /bench -->)",
    re.DOTALL,
)


def filled(text: str, results: Path = RESULTS) -> str:
    """A Markdown text with the tables that its markers ask for.

    Raises:
        ValueError: a stored run has no such table, or cannot be read.
    """

    def fill(found: re.Match[str]) -> str:
        stored = results / found["device"] / FILE
        known = tables(read_run(stored)) if stored.is_file() else {}
        if known and found["name"] not in known:
            raise ValueError(f"{stored} has no table {found['name']!r}: it has {', '.join(known)}")
        table = f"\n{markdown_table(known[found['name']])}\n\n" if known else ""
        return f"{found['begin']}{table}{found['end']}"

    return _MARKED.sub(fill, text)


def main(argv: Sequence[str] | None = None) -> int:
    """Fill the tables or check them; 1 where one differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, help="Markdown; default: README and docs")
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the stored runs")
    options = parser.parse_args(argv)
    differ = []
    for path in options.files or [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = path.read_text("utf-8")
        try:
            new = filled(text, options.results)
        except ValueError as error:
            parser.error(f"{path}: {error}")
        if new != text:
            differ.append(path)
            if not options.check:
                path.write_text(new, "utf-8")
            print(f"{path}: {'differs from the stored runs' if options.check else 'written'}")
    return int(options.check and bool(differ))


if __name__ == "__main__":
    sys.exit(main())
