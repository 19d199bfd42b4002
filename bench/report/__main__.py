"""Keeps a run as its device's one, and writes its report: `python -m bench.report RUN.json`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.report.page import write_report
from bench.report.results import store
from flipfast.errors import MissingDependencyError


def main(argv: Sequence[str] | None = None) -> int:
    """Store, and write the report if asked for; 2 for wrong use."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN.json", help="of --benchmark-json, or stored")
    parser.add_argument("--out", type=Path, help="folder; default: bench/results/<device>")
    parser.add_argument("--add", action="store_true", help="keep what this run does not have")
    parser.add_argument("--report", action="store_true", help="write report.html and report.md")
    options = parser.parse_args(argv)
    try:
        stored = store(options.run, options.out, add=options.add)
        print(f"results: {stored}")
        for path in write_report(stored) if options.report else ():
            print(f"report: {path}")
    except (ValueError, OSError, MissingDependencyError) as error:
        print(f"bench.report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
