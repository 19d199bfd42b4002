"""What quantised weights change: `python -m bench.quantised --out FILE.md`.

Two tables for docs/python.md: the error of a product with each kind of blocks, and how the rewards
of "small" on real responses differ from those with weights in floats.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.facts import ROOT
from bench.gguf_agreement import spearman
from flipfast.config import SMALL
from flipfast.engine.ops.blocks import FLOAT_KINDS, KINDS, Blocks, quantised, widened
from flipfast.engine.ops.cpu import best_weight_dtype, instruction_set
from flipfast.engine.ops.cpu_linear import CpuLinear
from flipfast.engine.ops.cpu_quantized import QuantizedCpuLinear
from flipfast.metrics import overlap_f1
from flipfast.reward import FlipReward
from flipfast.training.evaluate import among_all

GROUPS = ROOT.parent / "shared" / "data" / "workload_groups.jsonl.gz"
# By None, all of "small" is Q8_0: "int8" would be the same.
WEIGHTS = {"float": "float", "None": None, "int4": "int4"}
_N_OUT, _N_IN, _ROWS = 512, 2048, 64


def product_errors() -> Iterator[tuple[str, float, float | None]]:
    """The error of products of normal numbers, root mean square relative to the exact results.

    Yields:
        The kind of blocks, or the dtype; the error against the product in float64 of the weight as
        it is stored; and against that of the weight before it was quantised, for kinds that gguf
        has a rule for.
    """
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(_ROWS, _N_IN, generator=rng)
    weight = torch.randn(_N_OUT, _N_IN, generator=rng) * 0.05
    for dtype in dict.fromkeys((torch.float32, best_weight_dtype())):
        plain = CpuLinear(_N_OUT, _N_IN, bias=False, storage=dtype, compute=dtype)
        plain.load_rows(weight, 0)
        error = _error(plain(x, torch.empty(_ROWS, _N_OUT)), x, weight)
        yield str(dtype).removeprefix("torch."), error, error
    for kind in KINDS:
        blocks = quantised(weight, kind) if kind in FLOAT_KINDS else _random_blocks(kind, rng)
        linear = QuantizedCpuLinear(_N_OUT, _N_IN, bias=False)
        linear.load(blocks, 0)
        found = linear(x, torch.empty(_ROWS, _N_OUT))
        whole = _error(found, x, weight) if kind in FLOAT_KINDS else None
        yield kind, _error(found, x, widened(blocks)), whole


def _random_blocks(kind: str, rng: torch.Generator) -> Blocks:
    """Blocks of any numbers, all scales 0.01."""
    numbers, size = KINDS[kind]
    shape = (_N_OUT, _N_IN // numbers, size)
    data = torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)
    scale = torch.tensor([0.01], dtype=torch.float16).view(torch.uint8)
    for place in {"Q4_K": (0, 2), "Q6_K": (208,)}[kind]:
        data[..., place : place + 2] = scale
    return Blocks(kind, (_N_OUT, _N_IN), data.flatten(1))


def _error(found: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> float:
    exact = x.double() @ weight.double().T
    return float((found - exact).square().mean().sqrt() / exact.square().mean().sqrt())


def rewards(groups: Path, limit: int) -> dict[str, dict[str, Any]]:
    """Score real responses with "small" by each setting of `weights`.

    Returns:
        By setting: `auc` and `matched_f1` (see `evaluate_groups`), `seconds`, and against floats
        the shares of equal `rewards` and of equal `tokens` (those before the first difference),
        and the `rank_correlation` of the rewards.
    """
    with gzip.open(groups, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    instructions = [row["instruction"] for row in rows]
    pairs = [(i, text) for i, row in enumerate(rows) for text in row["responses"]][:limit]
    own, responses = np.array([i for i, _ in pairs]), [text for _, text in pairs]
    found: dict[str, dict[str, Any]] = {}
    batches: dict[str, Any] = {}
    for name, weights in WEIGHTS.items():
        with FlipReward(SMALL, weights=weights) as reward:
            started = time.perf_counter()
            batch = reward.score([instructions[i] for i in own], responses)
            seconds = time.perf_counter() - started
            tokenizer: Any = reward.inverter.tokenizer
        f1 = np.stack(
            [overlap_f1(batch.inferred, [i] * len(own))[:, 0] for i in instructions], axis=1
        )
        batches[name] = batch
        floats = batches["float"]
        shared = [
            _shared(tokenizer.encode(a), tokenizer.encode(b))
            for a, b in zip(floats.inferred, batch.inferred, strict=True)
        ]
        found[name] = {
            **among_all(f1, own, seed=0),
            "seconds": seconds,
            "rewards": np.mean(np.array(batch.rewards) == np.array(floats.rewards)),
            "tokens": sum(same for same, _ in shared) / sum(total for _, total in shared),
            "rank_correlation": spearman(batch.rewards, floats.rewards),
        }
    return found


def _shared(a: Sequence[int], b: Sequence[int]) -> tuple[int, int]:
    """How many tokens come before the first difference, and how many there are in a."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))), len(
        a
    )


def main() -> None:
    """Read the command line, measure, and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.quantised")
    parser.add_argument("--out", type=Path, required=True, help="Markdown to write")
    parser.add_argument("--groups", type=Path, default=GROUPS, help=GROUPS.name)
    parser.add_argument("--limit", type=int, default=500, help="responses")
    options = parser.parse_args()
    lines = [
        f"Instruction set: {instruction_set()}",
        "",
        "| weights | error of the product | with that of quantising |",
        "|---|---|---|",
    ]
    for kind, error, whole in product_errors():
        lines.append(f"| {kind} | {error:.2%} | {'' if whole is None else f'{whole:.2%}'} |")
    lines += ["", "| `weights` | equal tokens | equal rewards | rank correlation | AUC | F1 | s |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, row in rewards(options.groups, options.limit).items():
        cells = [f"{row['tokens']:.3f}", f"{row['rewards']:.3f}", f"{row['rank_correlation']:.3f}"]
        cells += [f"{row['auc']:.3f}", f"{row['matched_f1']:.3f}", f"{row['seconds']:.0f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    options.out.write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
