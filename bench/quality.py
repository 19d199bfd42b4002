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
JUDGES = "--rater pointwise --rater pairwise --rater listwise --rater p_true"
METRICS = "--rater flip:metric=f_beta:2 --rater flip:metric=token_f1 --rater flip:metric=char_f1"
COMMANDS = {
    "eval": f"eval PREFERENCES --rater flip --rater likelihood {JUDGES}",
    "metrics": f"eval PREFERENCES --rater flip {METRICS} "
    "--rater flip:metric=rouge_l --rater flip:metric=bleu",
    "consistency": "consistency GROUPS --limit 12",
    "attack": "attack GROUPS --limit 4 --climb 40 --rater flip --rater likelihood --rater p_true",
    "guards": "agree GROUPS --variant copy_guard=report --variant copy_guard=mask "
    "--variant copy_guard=discount",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run them; 1 where one failed."""
    options, model_options = _parse(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    groups = options.groups
    if groups.suffix == ".gz":
        groups = options.out / groups.stem
        groups.write_bytes(gzip.decompress(options.groups.read_bytes()))
    files = {"PREFERENCES": str(options.preferences), "GROUPS": str(groups)}
    failed = []
    for name in options.only or COMMANDS:
        kept = ["--plot", f"{options.out / name}.png", "--json-out", f"{options.out / name}.json"]
        command = [*(files.get(word, word) for word in COMMANDS[name].split()), *kept]
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


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m bench.quality",
        epilog="Further options, such as --model, go to every command.",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for what they write")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, help="only these")
    for name, usual in (("preferences", PREFERENCES), ("groups", GROUPS)):
        needed = {"required": not usual.exists(), "default": usual, "help": str(usual)}
        parser.add_argument(f"--{name}", type=Path, **needed)
    return parser.parse_known_args(argv)


if __name__ == "__main__":
    sys.exit(main())
