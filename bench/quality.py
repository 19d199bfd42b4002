"""What docs/quality.md tells of real models, anew: `make quality`, or `python -m bench.quality`.

Runs the package's own commands on preferences and on groups of real responses, one after the
other, for the model "small" and for SmolLM2-135M-Instruct as it is, keeps what each of them
writes, and makes `report.md` of it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.facts import ROOT
from bench.quality_report import report
from flipfast.config import SMALL
from flipfast.scoring.assembly import GET_SMALL, small_base

DATA = ROOT.parent / "shared" / "data"
PREFERENCES, GROUPS = DATA / "preferences_llmbar.jsonl.gz", DATA / "workload_groups.jsonl.gz"
WIN_RATES = ROOT / "bench" / "alpaca_eval_win_rates.json"
BASE = "SmolLM2-135M-Instruct"

# What takes long has fewer items: other styles, which repeat themselves, and judges that write.
_STYLES = [f"flip:style={style},max_new_tokens=128" for style in ("standalone", "conversation")]
_QUICK = ["flip:style=direct", "likelihood", "p_true"]
_SLOW = [*_STYLES, *(f"{name}:max_new_tokens=64" for name in ("pointwise", "pairwise", "listwise"))]
_FEW = 16  # groups
_METRICS = ["word_f1", "f_beta:2", "token_f1", "char_f1", "rouge_l", "bleu"]


def _raters(names: Sequence[str]) -> str:
    return " ".join(f"--rater {name}" for name in names)


_REAL = "-m flipfast.training.evaluate --groups 0 --real-groups GROUPS.gz"
_SHORT = f"{_REAL} --limit 8 --max-new-tokens 128"
_EVAL = f"-m flipfast eval PREFERENCES {_raters(_QUICK)} KEPT"
_PAIRS = f"-m flipfast eval PAIRS {_raters(_QUICK)} KEPT"
_WRITTEN = f"-m flipfast eval PREFERENCES {_raters(['flip:style=direct', *_SLOW])} --limit 6 KEPT"
_DRAFTS = "-m bench.quality_drafts GROUPS --limit"
# Parts by name: the model, and the arguments of Python.
PARTS = {
    "real-small": (SMALL, f"{_REAL} --win-rates {WIN_RATES}"),
    "real-base-direct": (BASE, f"{_SHORT} --style direct"),
    "real-base-standalone": (BASE, f"{_SHORT} --style standalone"),
    "real-base-forced": (BASE, f"{_SHORT} --style standalone --json forced"),
    "real-base-conversation": (BASE, f"{_SHORT} --style conversation"),
    "eval-small": (SMALL, _EVAL),
    "eval-base": (BASE, _EVAL),
    "pairs-small": (SMALL, f"{_PAIRS} --limit 32"),
    "pairs-base": (BASE, f"{_PAIRS} --limit 24"),
    "written-small": (SMALL, _WRITTEN),
    "written-base": (BASE, _WRITTEN),
    "metrics-small": (
        SMALL,
        f"-m flipfast eval PREFERENCES {_raters([f'flip:metric={m}' for m in _METRICS])} "
        "--limit 8 KEPT",
    ),
    "drafts-small": (SMALL, f"{_DRAFTS} 8"),
    "drafts-base": (BASE, f"{_DRAFTS} 2"),
    "attack-small": (
        SMALL,
        "-m flipfast attack GROUPS --limit 2 --climb 10 --rater flip --rater likelihood "
        "--rater p_true KEPT",
    ),
    "consistency-small": (SMALL, "-m flipfast consistency GROUPS --limit 3 KEPT"),
    "guards-small": (
        SMALL,
        "-m flipfast agree FEW --variant copy_guard=report --variant copy_guard=mask "
        "--variant copy_guard=discount KEPT",
    ),
}


def items(groups: Sequence[Mapping[str, Any]], rates: Mapping[str, float]) -> Iterator[dict]:
    """Preferences between responses of different models, made of groups.

    The best response of a group is that of the model with the highest win rate.

    Args:
        groups: with `instruction`, `responses` and `models`.
        rates: win rates of models by name; responses of others are not used.

    Yields:
        Two rows for each group with two such models: in the subset "relevance", the best response
        against the one to another group's instruction that is closest to it in length; in
        "strength", the best response against that of the model with the lowest win rate.
    """
    ranked = []
    for group in groups:
        pairs = zip(group["models"], group["responses"], strict=True)
        known = sorted((rates[model], text) for model, text in pairs if model in rates)
        if len(known) > 1:
            ranked.append((group["instruction"], [text for _, text in known]))
    for number, (instruction, texts) in enumerate(ranked):
        best, worst = texts[-1], texts[0]
        others = [text for i, (_, more) in enumerate(ranked) if i != number for text in more]
        closest = min(others, key=lambda text: (abs(len(text) - len(best)), text))
        for subset, rejected in (("relevance", closest), ("strength", worst)):
            row = {"prompt": instruction, "chosen": best, "rejected": rejected}
            yield {"id": f"{subset}-{number}", "subset": subset, **row}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts; 1 where one failed."""
    options = _options(argv)
    base = small_base()
    if base is None:
        sys.exit(f"{BASE} is not here: {GET_SMALL}")
    options.out.mkdir(parents=True, exist_ok=True)
    files = _files(options)
    paths, failed = {SMALL: SMALL, BASE: base}, []
    for name in options.only or PARTS:
        model, arguments = PARTS[name]
        stem = options.out / name
        words = arguments.replace("KEPT", f"--plot {stem}.png --json-out {stem}.json").split()
        command = [*(files.get(word, word) for word in words), "--model", paths[model]]
        print(f"{name}: python {' '.join(command)}", flush=True)
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *command], stdout=subprocess.PIPE, text=True, check=False
        )
        Path(f"{stem}.txt").write_text(done.stdout, "utf-8")
        print(f"{done.stdout}{time.perf_counter() - started:.0f} s\n", flush=True)
        if done.returncode:
            failed.append(name)
    (options.out / "report.md").write_text(report(options.out, PARTS), "utf-8")
    if failed:
        print(f"failed: {', '.join(failed)}")
    return int(bool(failed))


def _files(options: argparse.Namespace) -> dict[str, str]:
    """Write what the commands read, and return where it is by its name in `PARTS`."""
    names = ("groups.jsonl", "few.jsonl", "pairs.jsonl")
    groups, few, pairs = (options.out / name for name in names)
    text = gzip.decompress(options.groups.read_bytes()).decode()
    groups.write_text(text, "utf-8")
    few.write_text("".join(text.splitlines(keepends=True)[:_FEW]), "utf-8")
    rates = json.loads(WIN_RATES.read_text("utf-8"))["win_rates"]
    rows = items([json.loads(line) for line in text.splitlines()], rates)
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return {
        "PREFERENCES": str(options.preferences),
        "GROUPS": str(groups),
        "GROUPS.gz": str(options.groups),
        "FEW": str(few),
        "PAIRS": str(pairs),
    }


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.quality")
    parser.add_argument("--out", type=Path, required=True, help="folder for what they write")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="only these")
    for name, usual in (("preferences", PREFERENCES), ("groups", GROUPS)):
        needed = {"required": not usual.exists(), "default": usual, "help": f"{usual.name}"}
        parser.add_argument(f"--{name}", type=Path, **needed)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
