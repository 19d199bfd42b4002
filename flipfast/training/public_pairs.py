"""`python -m flipfast.training.public_pairs`: pairs from public files of instructions.

Two formats: lists of objects with `instruction`, `input` and `output` (Alpaca, Taori et al. 2023),
and a checkout of FLASK (Ye et al. 2023, arXiv 2307.10928), whose instructions come from 120
benchmarks, with the responses of 15 models. FLASK takes some instructions from where AlpacaEval
takes them; those, and all that begin like one that is kept out, are dropped.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

SOURCE = "public"
_MAX_CHARACTERS = 3000  # of a response: more is never shown
_PREFIX = 60  # normalised characters that make two instructions the same
_IN_ALPACA_EVAL = ("Self-instruct", "Koala", "Vicuna")


def read_alpaca(file: Path) -> Iterator[tuple[str, str]]:
    """Instructions, with their input below, and responses."""
    for row in json.loads(file.read_text("utf-8")):
        parts = row["instruction"], row.get("input")
        yield "\n".join(part for part in parts if part), row["output"]


def read_flask(checkout: Path) -> Iterator[tuple[str, str]]:
    """Instructions and responses of every model, without what AlpacaEval has, too."""
    instructions = {
        row["idx"]: row["instruction"]
        for row in _lines(checkout / "evaluation_set/flask_evaluation.jsonl")
        if row["task"] not in _IN_ALPACA_EVAL
    }
    for outputs in sorted((checkout / "model_output/outputs").glob("*.jsonl")):
        for row in _lines(outputs):
            if row["question_id"] in instructions:
                yield instructions[row["question_id"]], row.get("text") or row.get("output") or ""


def usable(pairs: Iterable[tuple[str, str]], kept_out: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs without empty ones, repeats, and instructions that begin like one of `kept_out`."""
    seen: set[tuple[str, str]] = set()
    beginnings = {_beginning(instruction) for instruction in kept_out}
    for instruction, response in pairs:
        pair = instruction.strip(), response.strip()[:_MAX_CHARACTERS]
        if all(pair) and pair not in seen and _beginning(pair[0]) not in beginnings:
            seen.add(pair)
            yield pair


def _beginning(instruction: str) -> str:
    return " ".join(re.findall(r"\w+", instruction.lower()))[:_PREFIX]


def _lines(file: Path) -> Iterator[dict[str, str]]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def main() -> None:
    """Read the command line and write the pairs."""
    parser = argparse.ArgumentParser(prog="python -m flipfast.training.public_pairs")
    parser.add_argument("--alpaca", type=Path, nargs="*", default=(), help="JSON lists")
    parser.add_argument("--flask", type=Path, help="a checkout of kaistAI/FLASK")
    parser.add_argument(
        "--keep-out", type=Path, nargs="*", default=(), help="JSON lists with an `instruction`"
    )
    parser.add_argument("--out", type=Path, required=True, help="gzipped JSON lines to write")
    arguments = parser.parse_args()
    pairs = [pair for file in arguments.alpaca for pair in read_alpaca(file)]
    if arguments.flask:
        pairs += read_flask(arguments.flask)
    kept_out = [
        row["instruction"] for file in arguments.keep_out for row in json.loads(file.read_text())
    ]
    with gzip.open(arguments.out, "wt", encoding="utf-8") as out:
        for instruction, response in usable(pairs, kept_out):
            row = {"instruction": instruction, "response": response, "source": SOURCE}
            out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
