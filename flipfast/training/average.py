"""Averages the weights of runs that were resumed from the same folder.

`python -m flipfast.training.average --out FOLDER RUN RUN ...`; a uniform "model soup" (Wortsman et
al. 2022, arXiv 2203.05482).
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

_WEIGHTS = "model.safetensors"


def average(out: Path, runs: Sequence[Path]) -> None:
    """Copy the first run to `out`, with the mean of all runs' weights.

    Args:
        out: the model folder to write.
        runs: model folders with identical shapes; the mean is computed in float32 and stored in
            bfloat16.
    """
    shutil.copytree(runs[0], out, dirs_exist_ok=True)
    states = [load_file(run / _WEIGHTS) for run in runs]
    mean = {
        name: torch.stack([state[name].float() for state in states]).mean(0).to(torch.bfloat16)
        for name in states[0]
    }
    save_file(mean, out / _WEIGHTS, metadata={"format": "pt"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flipfast.training.average")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("runs", type=Path, nargs="+", help="model folders")
    arguments = parser.parse_args()
    average(arguments.out, arguments.runs)
