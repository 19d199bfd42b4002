"""What quantised weights change: `python -m bench.quantised --out FILE.md`.

Two tables for docs/python.md: the error of a product with each kind of blocks, and how the rewards
of "small" on real responses differ from those with weights in floats. 8-bit floats, which only run
on CUDA, are computed as there, but for the order of the sums and for their bits: numbers and powers
of two are exact in bfloat16, and so are their products in float32.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import takewhile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from bench.facts import ROOT
from bench.gguf_agreement import spearman
from flipfast.config import SMALL
from flipfast.engine import loading
from flipfast.engine.ops.base import Linear, Operand, Ops
from flipfast.engine.ops.blocks import FLOAT_KINDS, KINDS, Blocks, quantised, widened
from flipfast.engine.ops.cpu import CpuOps, best_weight_dtype, instruction_set
from flipfast.engine.ops.cpu_linear import CpuLinear
from flipfast.engine.ops.cpu_quantized import QuantizedCpuLinear
from flipfast.engine.options import EngineOptions
from flipfast.metrics import overlap_f1
from flipfast.reward import FlipReward
from flipfast.training.evaluate import among_all
from flipfast_kernels.fp8_rows import quantize_rows_ref

GROUPS = ROOT.parent / "shared" / "data" / "workload_groups.jsonl.gz"
# By None, all of "small" is Q8_0: "int8" would be the same.
WEIGHTS = {"float": "float", "None": None, "int4": "int4", "fp8": "fp8"}
_N_OUT, _N_IN, _ROWS = 512, 2048, 64


def rounded(rows: torch.Tensor) -> torch.Tensor:
    """Rows as 8-bit floats and their scales have them."""
    return quantize_rows_ref(rows).widened()


class EmulatedFp8(CpuLinear):
    """The product of `Fp8Linear`, on the CPU."""

    def __init__(self, n_out: int, n_in: int, *, bias: bool) -> None:
        half = torch.bfloat16
        super().__init__(n_out, n_in, bias=bias, storage=half, compute=half)

    def load_rows(self, weight: torch.Tensor, first_row: int) -> None:
        super().load_rows(rounded(weight), first_row)

    def __call__(self, x: Operand, out: torch.Tensor) -> torch.Tensor:
        assert isinstance(x, torch.Tensor)
        return super().__call__(rounded(x), out)


class EmulatedFp8Ops(CpuOps):
    """All products of 8-bit floats but the head's."""

    def linear(self, n_out: int, n_in: int, *, bias: bool, **_: Any) -> Linear:
        return EmulatedFp8(n_out, n_in, bias=bias)

    def head(self, n_out: int, n_in: int, *, source_dtype: torch.dtype, **_: Any) -> Linear:
        return super().linear(n_out, n_in, bias=False, source_dtype=source_dtype)


def fp8_ops(device: torch.device, options: EngineOptions) -> Ops:
    """What takes the place of an engine's operations."""
    return EmulatedFp8Ops(torch.bfloat16, weights="float")


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
    eight = EmulatedFp8(_N_OUT, _N_IN, bias=False)
    eight.load_rows(weight, 0)
    found = eight(x, torch.empty(_ROWS, _N_OUT))
    yield "fp8", _error(found, x, rounded(weight)), _error(found, x, weight)
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
        emulated = (
            mock.patch.object(loading, "_ops", fp8_ops) if weights == "fp8" else nullcontext()
        )
        options = {"weights": None if weights == "fp8" else weights}
        with emulated, FlipReward(SMALL, **options) as reward:
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
