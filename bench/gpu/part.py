"""Runs parts that give figures: `python -m bench.gpu.part --out DIR NAME...`."""

from __future__ import annotations

import argparse
import gc
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

NAMES = ("device", "checks", "path", "rewards", "steps", "kernels", "tuning")


def main(argv: Sequence[str] | None = None) -> int:
    """Run parts; 1 where a check did not hold, 2 where there is no device."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.part")
    parser.add_argument("names", nargs="+", choices=NAMES, metavar="NAME")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shapes", action="append", help="of `rewards`, in place of all")
    parser.add_argument("--rehearse", action="store_true", help="launch nothing, without a device")
    parser.add_argument("--uncompiled", action="store_true", help="with it: compile nothing either")
    options = parser.parse_args(argv)
    if options.rehearse:
        from bench.gpu.rehearsal import pretend

        pretend(compiles=not options.uncompiled)

    import torch

    if not torch.cuda.is_available():
        print("torch sees no CUDA device")
        return 2
    from bench.gpu.place import Place
    from flipfast_kernels import tuning

    tuned = options.out / "tuning.json"
    tuning.use(tuned if tuned.exists() else None)
    tag = "[tuned]" if tuned.exists() else ""
    place = Place(options.out, rehearsed=options.rehearse, tag=tag)
    for name in options.names:
        given = {"shapes": options.shapes} if name == "rewards" and options.shapes else {}
        importlib.import_module(f"bench.gpu.{name}").run(place, **given)
        gc.collect()
        torch.cuda.empty_cache()
    for failure in place.failures:
        print(failure)
    print(f"{place.n_figures} figures, {place.n_checks} checks, {len(place.failures)} failures")
    return int(bool(place.failures))


if __name__ == "__main__":
    sys.exit(main())
