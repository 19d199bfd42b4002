"""Evaluates an inverter on what it has not seen.

`python -m flipfast.training.evaluate --model MODEL` prints JSON: the closed world's held-out part,
held-out real pairs (`--pairs PAIRS.jsonl.gz`), and groups of real responses (`--real-groups
GROUPS.jsonl.gz`) with what is known of the models that wrote them (`--win-rates FILE.json`).
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flipfast.config import EMBEDDED
from flipfast.errors import FlipfastError
from flipfast.metrics import overlap_f1
from flipfast.reward import FlipReward
from flipfast.scores import CUT, ScoreBatch
from flipfast.training.data import RealText
from flipfast.training.world import World

_OPENING = 15  # words of a response that the baseline takes as the inferred instruction


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


def evaluate_groups(
    reward: FlipReward,
    groups: Path,
    win_rates: Mapping[str, float] | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Score real responses against their own and against every other group's instruction.

    Args:
        reward: with any model.
        groups: gzipped JSON lines with `instruction`, `responses` and, for win rates, `models`.
        win_rates: of models, by their names; responses of others are left out of `win_rate`.
        limit: only the first groups; None for all.
        seed: of the choice among eight.

    Returns:
        `responses`, their number; `statuses`, counted; and for the reward and for the same
        baseline as `evaluate_real`: `matched_f1`, `shuffled_f1`, the `auc` between them,
        `best_of_8`: how often a response wins by its instruction's reward against seven responses
        to other instructions, ties split, and `win_rate`: of the model whose response has the
        highest reward of its group, ties averaged, as a mean over groups. The win rate of all
        responses is in `any_response`.
    """
    with gzip.open(groups, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in islice(lines, limit)]
    instructions = [row["instruction"] for row in rows]
    own = np.repeat(np.arange(len(rows)), [len(row["responses"]) for row in rows])
    responses = [response for row in rows for response in row["responses"]]
    batch = _score(reward, [instructions[i] for i in own], responses)
    openings = [" ".join(response.split()[:_OPENING]) for response in responses]
    rates = np.array(
        [
            (win_rates or {}).get(model, np.nan)
            for row in rows
            for model in row.get("models", [None] * len(row["responses"]))
        ]
    )
    statuses = Counter(status.removesuffix(CUT) for status in batch.status)
    figures: dict[str, Any] = {"responses": len(responses), "statuses": dict(statuses)}
    for name, texts in (("reward", batch.inferred), ("first_15_words", openings)):
        f1 = np.stack([overlap_f1(texts, [i] * len(texts))[:, 0] for i in instructions], axis=1)
        figures[name] = among_all(f1, own, seed)
        if win_rates:
            figures[name]["win_rate"] = _of_the_best(f1[np.arange(len(own)), own], rates, own)
    if win_rates:
        figures["any_response"] = {"win_rate": _of_the_best(np.zeros(len(own)), rates, own)}
    return figures


def among_all(f1: NDArray[np.float64], own: NDArray[np.intp], seed: int) -> dict[str, float]:
    """Compare each row's F1 with its own instruction with its F1 with the others.

    Args:
        f1: (rows, instructions).
        own: of each row, the column of its own instruction.
        seed: of the choice among eight.

    Returns:
        What `evaluate_groups` has of the reward, without the win rate.
    """
    is_own = own[:, None] == np.arange(f1.shape[1])
    rng, won = np.random.default_rng(seed), 0.0
    for row, group in enumerate(own):
        others = rng.choice(np.flatnonzero(own != group), size=7, replace=False)
        rivals = f1[others, group]
        won += (rivals <= f1[row, group]).all() / (1 + (rivals == f1[row, group]).sum())
    return _figures(f1[is_own], f1[~is_own]) | {"best_of_8": won / len(own)}


def _of_the_best(
    rewards: NDArray[np.float64], rates: NDArray[np.float64], own: NDArray[np.intp]
) -> float:
    means = []
    for group in range(own.max() + 1):
        inside = (own == group) & ~np.isnan(rates)
        if inside.any():
            is_best = rewards[inside] == rewards[inside].max()
            means.append(rates[inside][is_best].mean())
    if not means:
        raise FlipfastError("the file of win rates has none of the models that wrote the responses")
    return float(np.mean(means))


def _against_openings(reward: FlipReward, chosen: Sequence[tuple[str, str]]) -> dict[str, Any]:
    instructions = [instruction for instruction, _ in chosen]
    responses = [response for _, response in chosen]
    inferred = _score(reward, instructions, responses).inferred
    openings = [" ".join(response.split()[:_OPENING]) for response in responses]
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
    return _figures(overlap_f1(inferred, instructions)[:, 0], overlap_f1(inferred, others)[:, 0])


def _figures(matched: NDArray[np.float64], shuffled: NDArray[np.float64]) -> dict[str, float]:
    ordered = np.sort(shuffled)
    below, not_above = (np.searchsorted(ordered, matched, side=side) for side in ("left", "right"))
    return {
        "matched_f1": float(matched.mean()),
        "shuffled_f1": float(shuffled.mean()),
        "auc": float((below + not_above).mean() / 2 / len(ordered)),
    }


def main() -> None:
    """Read the command line and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m flipfast.training.evaluate")
    parser.add_argument("--model", default=EMBEDDED, help='"embedded", "small", a file or folder')
    parser.add_argument("--adapter", help="folder with a LoRA adapter of the model")
    parser.add_argument("--pairs", type=Path, help="real pairs, gzipped JSON lines")
    parser.add_argument("--real-groups", type=Path, help="real groups, gzipped JSON lines")
    parser.add_argument("--limit", type=int, help="only the first real groups")
    parser.add_argument("--win-rates", type=Path, help="JSON with `win_rates` of models by name")
    parser.add_argument(
        "--groups", type=int, default=200, help="groups of the closed world; 0: none"
    )
    parser.add_argument("--n-pairs", type=int, default=400, help="real pairs to draw")
    for option in ("style", "json", "device", "weights"):
        parser.add_argument(f"--{option}", help="as for FlipReward")
    parser.add_argument("--max-new-tokens", type=int)
    arguments = parser.parse_args()
    options = ("adapter", "style", "json", "device", "weights", "max_new_tokens")
    given = {name: value for name in options if (value := getattr(arguments, name)) is not None}
    reward = FlipReward(arguments.model, **given)
    figures = {}
    if arguments.groups:
        figures["world"] = evaluate_world(reward, arguments.groups)
    if arguments.pairs:
        figures["real"] = evaluate_real(reward, arguments.pairs, arguments.n_pairs)
    if arguments.real_groups:
        rates = arguments.win_rates and json.loads(arguments.win_rates.read_text())["win_rates"]
        figures["groups"] = evaluate_groups(
            reward, arguments.real_groups, rates, limit=arguments.limit
        )
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
