"""What docs/quality.md tells of a model, anew: `make quality`, or `python -m bench.quality`.

Runs the package's own commands on preferences and on groups of real responses, one after the
other, and keeps what each of them prints, its JSON and its plot.
"""

from __future__ import annotations

import argparse
import gzip
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.facts import ROOT

DATA = ROOT.parent / "shared" / "data"
PREFERENCES, GROUPS = DATA / "preferences_llmbar.jsonl.gz", DATA / "workload_groups.jsonl.gz"
METRICS = ("f_beta:2", "token_f1", "char_f1", "rouge_l", "bleu")
GUARDS = ("report", "mask", "discount")
JUDGES = ("flip", "likelihood", "pointwise", "pairwise", "listwise", "p_true")
SHOWN = ("eval", "metrics", "consistency", "attack", "guards")


def main(argv: Sequence[str] | None = None) -> int:
    """Run them; 1 where one failed."""
    options, model_options = _parse(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    groups = options.groups
    if groups.suffix == ".gz":
        groups = options.out / groups.stem
        groups.write_bytes(gzip.decompress(options.groups.read_bytes()))
    failed = []
    for name, command in _commands(options.preferences, groups, options.out).items():
        if options.only and name not in options.only:
            continue
        print(f"{name}: flipfast {' '.join(command)}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "flipfast", *command, *model_options],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        print(done.stdout, flush=True)
        (options.out / f"{name}.txt").write_text(done.stdout, "utf-8")
        if done.returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return int(bool(failed))


def _commands(preferences: Path, groups: Path, out: Path) -> dict[str, list[str]]:
    metrics = " ".join(f"--rater flip:metric={metric}" for metric in METRICS)
    guards = " ".join(f"--variant copy_guard={guard}" for guard in GUARDS)
    judges = " ".join(f"--rater {judge}" for judge in JUDGES)
    few = "--limit 4 --climb 40 --rater flip --rater likelihood --rater p_true"
    found = {
        "eval": ("eval", preferences, judges),
        "metrics": ("eval", preferences, f"--rater flip {metrics}"),
        "consistency": ("consistency", groups, "--limit 12"),
        "attack": ("attack", groups, few),
        "guards": ("agree", groups, guards),
    }
    return {
        name: [
            *(command, str(path), *options.split()),
            *("--plot", str(out / f"{name}.png"), "--json-out", str(out / f"{name}.json")),
        ]
        for name, (command, path, options) in found.items()
    }


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m bench.quality",
        epilog="Further options, such as --model, go to every command.",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for what they write")
    parser.add_argument("--only", nargs="+", choices=SHOWN, help="only these")
    for name, usual in (("preferences", PREFERENCES), ("groups", GROUPS)):
        needed = {"required": not usual.exists(), "default": usual, "help": str(usual)}
        parser.add_argument(f"--{name}", type=Path, **needed)
    return parser.parse_known_args(argv)


if __name__ == "__main__":
    sys.exit(main())
