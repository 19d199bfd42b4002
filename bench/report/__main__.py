"""Keeps a run as its device's one and writes reports: `python -m bench.report RUN.json`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.facts import ROOT, device_folder
from bench.report.page import read_run, write_report
from bench.results import FILE, store
from flipfast.errors import MissingDependencyError


def main(argv: Sequence[str] | None = None) -> int:
    """Store a run, write its report, or both; 2 for wrong use."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN.json", help="of --benchmark-json, or stored")
    parser.add_argument("--store", action="store_true", help="keep it as this device's run")
    parser.add_argument("--add", action="store_true", help="to that, with the others it has")
    parser.add_argument("--page", action="store_true", help="write report.md with its pictures")
    parser.add_argument("--out", type=Path, help="where to; bench/results/<device>, beside RUN")
    options = parser.parse_args(argv)
    try:
        run, folder = options.run, options.out or options.run.parent
        if options.store:
            content = read_run(run)
            quick = content.get("machine_info", {}).get("sizes") == "quick"
            usual = ROOT / "bench" / "results" / device_folder(content.get("device"))
            folder = options.out or (usual / "quick" if quick else usual)  # takes no other's place
            run = store([*([folder / FILE] if options.add else []), run], folder)
            print(f"results: {run}")
        for path in write_report(run, folder) if options.page else ():
            print(f"report: {path}")
    except (ValueError, OSError, MissingDependencyError) as error:
        print(f"bench.report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
