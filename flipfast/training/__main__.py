"""`python -m flipfast.training`: train the embedded inverter."""

from __future__ import annotations

import argparse
from pathlib import Path

from flipfast.training.train import Recipe, train


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m flipfast.training", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--steps", type=int, default=5000, help="how long to train")
    parser.add_argument("--pairs", type=Path, help="real pairs, gzipped JSON lines")
    parser.add_argument("--resume", type=Path, help="model folder to go on from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    train(Recipe(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
