"""A model of an H200: rewards/s by arithmetic, before and after changes. Nothing here is measured.

    python -m bench.gpu.model [--device FOLDER]

The scheduler plans the steps of a stream of requests (`bench.gpu.step_mix`); a step takes what its
bytes and operations take at assumed rates. All assumptions are in `Assumed`; a stored run of the
device in bench/results replaces those that it has measured.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from bench.gpu.step_mix import Load, Mix, Step, simulate
from bench.shapes import QWEN3, SHAPES, heads, products
from flipfast.engine.step_shapes import MOST_ROWS

RESULTS = Path(__file__).resolve().parents[1] / "results"
_TWO = 2.0  # bytes of a number, and operations of a multiplication with its addition


@dataclass(frozen=True)
class Assumed:
    """Rates of the device and of its host, and which share of them the kernels reach.

    Attributes:
        bytes_a_s: of a copy.
        flops_a_s: of a large product of torch, bfloat16.
        weights: share of the first, of reading weights in products of few rows.
        few_rows, many_rows: share of the second, of products of 256 and of 8,192 rows; in between
            by the logarithm of the rows.
        decode_tile: share of the first, of keys read by decoding rows in the low tile of attention.
        mixed_tile: the same in steps that read prompts, too.
        prompt_tile: share of the second, of attention of prompts.
        small_kernels: share of the first, of norms, rotations and activations.
        gap: seconds between two kernels.
        host_step: seconds of the host for a step, its kernels aside: plan, copies, sampling.
        host_launch: seconds of the host for a kernel that is not in a CUDA graph.
        mixed_launches: attention's, in a layer of such a step.
        recorded_drafts: whether steps with drafts are CUDA graphs.
        recorded_rows: most rows of a step with prompts that is one; 0 if none is.
        fp8: whether weights, but embedding and head, and the rows that they multiply have 8 bits.
            Norms and activations round what they write, and one more kernel a layer what attention
            wrote.
        fp8_speed: operations a second of products of 8 bits, relative to bfloat16's.
    """

    bytes_a_s: float = 4.3e12
    flops_a_s: float = 790e12
    weights: float = 0.8
    few_rows: float = 0.475
    many_rows: float = 0.55
    decode_tile: float = 0.70
    mixed_tile: float = 0.45
    prompt_tile: float = 0.5
    small_kernels: float = 0.8
    gap: float = 1e-6
    host_step: float = 4e-3
    host_launch: float = 40e-6
    mixed_launches: int = 1
    recorded_drafts: bool = False
    recorded_rows: int = 0
    fp8: bool = False
    fp8_speed: float = 2.0

    def product_share(self, rows: int) -> float:
        """Of `flops_a_s`, of a product of so many rows."""
        place = math.log2(max(rows, 1) / 256) / math.log2(8192 / 256)
        return self.few_rows + (self.many_rows - self.few_rows) * min(max(place, 0.0), 1.0)


# Everything at full speed, and nothing in between.
IDEAL = Assumed(
    weights=1.0,
    few_rows=1.0,
    many_rows=1.0,
    decode_tile=1.0,
    mixed_tile=1.0,
    prompt_tile=1.0,
    small_kernels=math.inf,
    gap=0.0,
    host_step=0.0,
    host_launch=0.0,
)


class Change(NamedTuple):
    """A change of the engine: of what is assumed, or of the steps that are planned."""

    name: str
    assumed: Mapping[str, Any] = {}
    groups: bool = False  # see Scheduler


CHANGES = (
    Change("products of prompts from 55 to 75 %", {"many_rows": 0.75}),
    Change(
        "decoding rows of mixed steps in the low tile", {"mixed_tile": 0.70, "mixed_launches": 2}
    ),
    Change("sequences join eight at a time", groups=True),
    Change(
        "recorded steps with prompts, packed copies",
        {"recorded_rows": MOST_ROWS, "host_step": 2e-3},
    ),
    Change("weights and activations in FP8", {"fp8": True}),
)
# Not begun: what more there is.
FURTHER = (
    Change("products of 256 rows from 47.5 to 65 %", {"few_rows": 0.65}),
    Change(
        "attention of decoding rows at 85 %",
        {"decode_tile": 0.85, "mixed_tile": 0.85, "mixed_launches": 2},
    ),
)
DRAFTS = Change("recorded steps with drafts", {"recorded_drafts": True})
N_DRAFTED, ACCEPTANCE = 3, 0.4  # tokens of a draft, the chance of each: 1.6 tokens a pass


def device_s(step: Step, shape: str, a: Assumed) -> float:
    """Seconds of a step on the device."""
    c = SHAPES[shape].config
    layers, hidden, inner = (
        c[name] for name in ("num_hidden_layers", "hidden_size", "intermediate_size")
    )
    n_heads, n_kv_heads, size = heads(shape)

    def product(n_weights: float, rows: int, fp8: bool = False) -> float:
        read = (1.0 if fp8 else _TWO) * n_weights / a.bytes_a_s / a.weights
        rate = a.flops_a_s * (a.fp8_speed if fp8 else 1.0) * a.product_share(rows)
        return max(read, _TWO * n_weights * rows / rate) if rows else 0.0

    a_key = _TWO * 2 * n_kv_heads * size * layers / a.bytes_a_s
    a_pair = _TWO * 2 * n_heads * size * layers / a.flops_a_s
    tile = a.mixed_tile if step.prompt_rows else a.decode_tile
    small = step.rows * layers * (16 * hidden + 4 * (n_heads + 2 * n_kv_heads) * size + 6 * inner)
    if a.fp8:
        small += step.rows * layers * (3 * n_heads * size - 2 * hidden - inner)
    return (
        layers * sum(product(n_out * n_in, step.rows, a.fp8) for n_out, n_in in products(shape))
        + product(c["vocab_size"] * hidden, step.logits)
        + step.decode_keys * a_key / tile
        + max(step.prompt_keys * a_key, step.prompt_pairs * a_pair) / a.prompt_tile
        + small / a.bytes_a_s / a.small_kernels
        + n_launches(step, shape, a) * a.gap
    )


def n_launches(step: Step, shape: str, a: Assumed) -> int:
    """Kernels of a step's layers, and the first norm."""
    mixed = step.prompt_rows > 0 and step.decoding > 0
    a_layer = 8 + (a.mixed_launches if mixed else 1) + a.fp8
    return int(SHAPES[shape].config["num_hidden_layers"]) * a_layer + 1


def step_s(step: Step, shape: str, a: Assumed) -> float:
    """Seconds of a step: the host plans a step during the one before, unless it has drafts."""
    device = device_s(step, shape, a)
    recorded = step.rows <= a.recorded_rows if step.prompt_rows else True
    recorded = recorded and (a.recorded_drafts or not step.drafted)
    launching = 0.0 if recorded else n_launches(step, shape, a) * a.host_launch
    if step.drafted:
        return a.host_step + max(device, launching)
    return max(device, a.host_step + launching)


def rewards_per_s(mix: Mix, n: int, shape: str, a: Assumed) -> float:
    """Of n requests in these steps."""
    return n / sum(step_s(step, shape, a) for step in mix.steps)


def floors(shape: str, a: Assumed = IDEAL, n_out: int = 70) -> tuple[float, float, float]:
    """Seconds of the prompts of 256 sequences, and of a decode step: of its products, and of its
    keys, halfway through n_out tokens.
    """
    n, own, shared = 256, 490, 160
    pairs = n * (own * shared + own * (own + 1) // 2) + shared * (shared + 1) // 2
    keys = n * (shared + own + n_out // 2)
    prompts = Step(prompt_rows=n * own + shared, prompt_pairs=pairs, logits=n)
    decode = Step(decoding=n, decode_rows=n, logits=n)
    whole = decode._replace(decode_keys=keys)
    alone = device_s(decode, shape, a)
    return device_s(prompts, shape, a), alone, device_s(whole, shape, a) - alone


def measured(rows: Sequence[Mapping[str, Any]], a: Assumed) -> tuple[Assumed, list[str]]:
    """What a stored run of a device replaces, and the names of that.

    Args:
        rows: "benchmarks" of a file in bench/results.
        a: what is assumed otherwise.
    """

    def mean(group: str, part: str, value: Callable[[Mapping[str, Any]], float]) -> float | None:
        found = [
            value(row["extra_info"])
            for row in rows
            if row.get("group") == group and part in row["name"]
        ]
        return fmean(found) if found else None

    def share(info: Mapping[str, Any]) -> float:
        return float(1e3 * info["tflop_per_s"] / info["product_gflop_per_s"])

    speed, many = (
        mean(group, " 8192 rows", lambda info: float(info["tflop_per_s"]))
        for group in ("fp8 product", "product")
    )
    new = {
        "bytes_a_s": mean("device", "", lambda info: 1e9 * info["copy_gb_per_s"]),
        "flops_a_s": mean("device", "", lambda info: 1e9 * info["product_gflop_per_s"]),
        "weights": mean("product", " 64 rows", lambda info: info["share_of_copy"]),
        "few_rows": mean("product", " 256 rows", share),
        "many_rows": mean("product", " 8192 rows", share),
        "fp8_speed": speed and many and speed / many,
        "decode_tile": mean("attention", "decode, 256 x 700", lambda info: info["share_of_copy"]),
        "prompt_tile": mean("attention", "prefill", share),
        "small_kernels": mean("norm_rope_write", " 8192 rows", lambda x: x["share_of_copy"]),
    }
    found = {name: value for name, value in new.items() if value is not None}
    return replace(a, **found), list(found)


@cache
def mix_of(load: Load, groups: bool, drafts: int) -> Mix:
    """`simulate`, once."""
    return simulate(load, groups=groups, drafts=drafts, acceptance=ACCEPTANCE)


def before_and_after(load: Load, a: Assumed) -> list[tuple[str, dict[str, float]]]:
    """Rewards/s by shape: before all changes, with each by itself, then with all; the same of steps
    with drafts.
    """

    def of(changes: Sequence[Change], drafts: int = 0) -> dict[str, float]:
        now = a
        for change in changes:
            now = replace(now, **change.assumed)
        groups = any(change.groups for change in changes)
        mix = mix_of(load, groups, drafts)
        return {shape: rewards_per_s(mix, load.n, shape, now) for shape in QWEN3}

    exact = [change for change in CHANGES if "fp8" not in change.assumed]
    return [
        ("before", of([])),
        *((change.name, of([change])) for change in CHANGES),
        ("all but FP8", of(exact)),
        ("all", of(CHANGES)),
        *((f"all but FP8, {change.name}", of([*exact, change])) for change in FURTHER),
        ("before, with drafts", of([], N_DRAFTED)),
        (f"before, {DRAFTS.name}", of([DRAFTS], N_DRAFTED)),
        (f"all but FP8, {DRAFTS.name}", of([*exact, DRAFTS], N_DRAFTED)),
        (f"all, {DRAFTS.name}", of([*CHANGES, DRAFTS], N_DRAFTED)),
    ]


def tables(load: Load, a: Assumed) -> str:
    """Floors, then rewards/s, as Markdown."""
    names = [name.removeprefix("qwen3-").upper() for name in QWEN3]
    lines = ["| | prompts, ms | decode step, ms: products + keys | floor, rewards/s |"]
    lines.append("|---|---|---|---|")
    for name, shape in zip(names, QWEN3, strict=True):
        prompts, weights, keys = floors(shape, replace(IDEAL, **_rates(a)))
        rewards = 256 / (prompts + 70 * (weights + keys))
        decode = f"{1e3 * weights:.2f} + {1e3 * keys:.1f}"
        lines.append(f"| {name} | {1e3 * prompts:.0f} | {decode} | {rewards:.0f} |")
    found = before_and_after(load, a)
    before = found[0][1]
    lines += ["", f"| rewards/s, modelled | {' | '.join(names)} |"]
    lines.append("|---" * (1 + len(names)) + "|")
    for name, values in found:
        cells = [f"{values[x]:.0f} ({values[x] / before[x]:.2f})" for x in QWEN3]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _rates(a: Assumed) -> dict[str, float]:
    return {"bytes_a_s": a.bytes_a_s, "flops_a_s": a.flops_a_s}


def main(argv: Sequence[str] | None = None) -> int:
    """Print what is assumed, and the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.model", description=__doc__)
    parser.add_argument("--device", default="nvidia-h200", help="a folder of bench/results")
    options = parser.parse_args(argv)
    assumed, names = Assumed(), []
    stored = RESULTS / options.device / "benchmarks.json"
    if stored.exists():
        rows = json.loads(stored.read_text("utf-8"))["benchmarks"]
        assumed, names = measured(rows, assumed)
    for field in fields(Assumed):
        source = "measured" if field.name in names else "assumed"
        print(f"{field.name}: {getattr(assumed, field.name):g} ({source})")
    print("", tables(Load(), assumed), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
