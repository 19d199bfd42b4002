"""What the compiler makes of the kernels for compute capability 9.0: a table of docs/kernels.md.

No GPU is needed: `python bench/kernel_resources.py` compiles what the tests compile.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

# Constants by which the table tells a kernel's variants apart.
_TOLD = {
    "accept": ("HAS_DRAFTS", "HAS_PROBS"),
    "attend": ("HEAD_DIM", "MODE", "BLOCK_M"),
    "combine": ("HEAD_DIM",),
    "gated": ("GELU", "GROUPS"),
    "head_row": ("BLOCK", "HAS_SUMS"),
    "head_tile": ("BLOCK_M", "HAS_SUMS"),
    "linear_fp8_tma": ("GROUPED", "BLOCK_M", "BLOCK_N"),
    "linear": ("BLOCK_M", "BLOCK_N"),
    "linear_tma": ("BLOCK_M", "BLOCK_N"),
    "norm_rope": ("QUERY_NORM", "BLOCK_H", "BLOCK_KV"),
    "overlap": ("BLOCK",),
    "quantize_rows": ("GROUPS", "WIDTH"),
    "rms_norm": ("BLOCK", "GROUPS"),
    "sorted_overlap": ("BLOCK",),
    "word_f1": ("BLOCK_T",),
}


def main() -> None:
    """Compile and print."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.kernels.compiling"]
    paths = os.pathsep.join((str(ROOT), str(ROOT / "kernels")))
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    print(f"Triton {metadata.version('triton')}:\n")
    print(table(row for row in json.loads(done.stdout) if row["sm"] == 90))


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Markdown, a line for what `_TOLD` tells apart, with the most that its variants take."""
    groups = defaultdict(list)
    for row in rows:
        told = [f"{name}={row['constants'][name]}" for name in _TOLD.get(row["kernel"], ())]
        groups[" ".join([row["kernel"], row["type"], *told])].append(row)
    lines = ["| kernel | variants | registers | stack | shared memory |", "|---|---|---|---|---|"]
    for name, members in sorted(groups.items()):
        most = [max(row[what] for row in members) for what in ("registers", "stack", "shared")]
        lines.append(f"| {name} | {len(members)} | " + " | ".join(f"{n:,}" for n in most) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
