"""Evaluates an inverter on what it has not seen.

`python -m flipfast.training.evaluate --model FOLDER [--pairs PAIRS.jsonl.gz]` prints JSON: for the
embedded model the closed world's held-out part and held-out real pairs, for "small" the AlpacaEval
instructions that were kept from it.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from flipfast.config import EMBEDDED, SMALL
from flipfast.errors import FlipfastError
from flipfast.metrics import overlap_f1
from flipfast.reward import FlipReward
from flipfast.scores import ScoreBatch
from flipfast.training.data import RealText
from flipfast.training.small import is_held_out
from flipfast.training.world import World


def evaluate_world(reward: FlipReward, n_groups: int, seed: int = 0) -> dict[str, Any]:
    """Score held-out groups of the closed world, two good responses and six failures each.

    Returns:
        `groups`, `mean_f1` by label, and `best_of_8`: how often the best response is a good one;
        if several tie for the best, the share of good ones among them counts.
    """
    rng = Random(seed)
    world = World(held_out=True)
    groups = [world.group(rng) for _ in range(n_groups)]
    samples = [sample for group in groups for sample in group.samples]
    batch = _score(reward, [s.instruction for s in samples], [s.response for s in samples])
    values = np.array([r or 0.0 for r in batch.rewards])  # a failed inversion counts as 0
    by_label: dict[str, list[float]] = defaultdict(list)
    for sample, value in zip(samples, values.tolist(), strict=True):
        by_label[sample.label].append(value)
    is_good = np.array([sample.label == "good" for sample in samples]).reshape(n_groups, -1)
    is_best = (table := values.reshape(n_groups, -1)) == table.max(axis=1, keepdims=True)
    picked = (is_best & is_good).sum(axis=1) / is_best.sum(axis=1)
    return {
        "groups": n_groups,
        "mean_f1": {label: float(np.mean(f1)) for label, f1 in sorted(by_label.items())},
        "best_of_8": float(picked.mean()),
    }


def evaluate_real(reward: FlipReward, pairs: Path, n_pairs: int, seed: int = 0) -> dict[str, Any]:
    """Score held-out real pairs against their own and against another pair's instruction.

    Returns:
        The number of pairs, and the mean F1 of matched and of shuffled pairs with the AUC between
        them, both for the reward and for a baseline that takes the first 15 words of the response
        as the inferred instruction.
    """
    held_out = RealText(pairs, held_out=True).pairs
    return _against_openings(reward, Random(seed).sample(held_out, min(n_pairs, len(held_out))))


def evaluate_alpaca(
    reward: FlipReward, pairs: Path, n_each: int = 2, seed: int = 0
) -> dict[str, Any]:
    """Score responses to the AlpacaEval instructions that were kept from "small".

    Args:
        reward: with any model.
        pairs: gzipped JSON lines with `instruction`, `response` and `source`.
        n_each: responses per instruction.
        seed: of their choice.

    Returns:
        As `evaluate_real`.
    """
    responses: dict[str, set[str]] = defaultdict(set)
    with gzip.open(pairs, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["source"] == "alpaca_eval" and is_held_out(row["instruction"]):
                responses[row["instruction"]].add(row["response"])
    rng = Random(seed)
    chosen = [
        (instruction, response)
        for instruction, given in sorted(responses.items())
        for response in rng.sample(sorted(given), min(n_each, len(given)))
    ]
    return _against_openings(reward, chosen)


def _against_openings(reward: FlipReward, chosen: Sequence[tuple[str, str]]) -> dict[str, Any]:
    instructions = [instruction for instruction, _ in chosen]
    responses = [response for _, response in chosen]
    inferred = _score(reward, instructions, responses).inferred
    openings = [" ".join(response.split()[:15]) for response in responses]
    return {
        "pairs": len(chosen),
        "reward": _separation(inferred, instructions),
        "first_15_words": _separation(openings, instructions),
    }


def _score(reward: FlipReward, instructions: Sequence[str], responses: Sequence[str]) -> ScoreBatch:
    """Score responses; raises FlipfastError if a row could not be run."""
    batch = reward.score(instructions, responses)
    errors = [error for error in batch.errors if error is not None]
    if errors:
        raise FlipfastError(f"{len(errors)} of {len(batch)} rows could not be run: {errors[0]}")
    return batch


def _separation(inferred: Sequence[str], instructions: Sequence[str]) -> dict[str, float]:
    """Compare matched pairs with those of the next different instruction."""
    others = [
        next((o for o in (*instructions[i + 1 :], *instructions[:i]) if o != own), own)
        for i, own in enumerate(instructions)
    ]
    matched = overlap_f1(inferred, instructions)[:, 0]
    shuffled = overlap_f1(inferred, others)[:, 0]
    above = (matched[:, None] > shuffled).mean() + 0.5 * (matched[:, None] == shuffled).mean()
    return {
        "matched_f1": float(matched.mean()),
        "shuffled_f1": float(shuffled.mean()),
        "auc": float(above),
    }


def main() -> None:
    """Read the command line and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m flipfast.training.evaluate")
    parser.add_argument("--model", default=EMBEDDED, help="model folder")
    parser.add_argument("--pairs", type=Path, help="real pairs, gzipped JSON lines")
    parser.add_argument("--groups", type=int, default=200, help="groups of the closed world")
    parser.add_argument("--n-pairs", type=int, default=400, help="real pairs to draw")
    parser.add_argument("--device")
    arguments = parser.parse_args()
    reward = FlipReward(arguments.model, device=arguments.device)
    if arguments.model == SMALL:
        if arguments.pairs is None:
            parser.error("--model small needs --pairs")
        figures = {"alpaca_eval": evaluate_alpaca(reward, arguments.pairs)}
    else:
        figures = {"world": evaluate_world(reward, arguments.groups)}
        if arguments.pairs:
            figures["real"] = evaluate_real(reward, arguments.pairs, arguments.n_pairs)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
