"""What the compiler makes of the kernels for compute capability 9.0: a table of docs/kernels.md.

No GPU is needed: `python bench/kernel_resources.py` compiles what the tests compile.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

COMPILING = Path(__file__).resolve().parents[1] / "tests/kernels/compiling.py"


def main() -> None:
    """Compile and print."""
    command = [sys.executable, "-W", "ignore", str(COMPILING)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    print(f"Triton {metadata.version('triton')}:\n")
    print(table(row for row in json.loads(done.stdout) if row["sm"] == 90))


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Markdown, one line a configuration."""
    lines = ["| configuration | registers | stack | shared memory |", "|---|---|---|---|"]
    for row in rows:
        cells = (row["name"], str(row["registers"]), str(row["stack"]), f"{row['shared']:,}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
