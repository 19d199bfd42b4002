"""What the id overlap takes on an H200, predicted from its machine code; no GPU is needed.

`python -m bench.kernel_count` compiles the kernels for compute capability 9.0 and counts the
instructions of a warp: those of a loop as often as it runs. Two bounds follow. Four schedulers a
multiprocessor each issue an instruction a cycle. Of integer additions, comparisons, minima and
logic, which have the same 16 lanes, each can issue one in two cycles, as the table of throughputs
in NVIDIA's CUDA programming guide has it. Waiting for memory and for results is in neither.
"""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bench.sass import Program, parse, told

ROOT = Path(__file__).resolve().parents[1]
JIT = ROOT / "kernels/flipfast_kernels/jit"
GROUPS = ROOT.parent / "shared/data/workload_groups.jsonl.gz"
PAIRS = 1_000_000
LONGEST = 64
BANDWIDTH = 4.8e12  # bytes a second, of the datasheet
CYCLES = 132 * 4 * 1.7e9  # of all schedulers in a second
# Instructions of the 16 integer lanes; IMAD and floating point have others.
ALU = {"FSET", "FSETP", "FMNMX", "FSEL", "IADD3", "ISETP", "LEA", "LOP3", "P2R", "PLOP3", "PRMT"}
ALU |= {"SEL", "SGXT", "SHF", "VIADD", "VIADDMNMX", "VIMNMX", "VIMNMX3"}


@dataclass(frozen=True)
class Kernel:
    """A kernel for pairs of rows of up to LONGEST ids.

    Attributes:
        name: in the table.
        module, function: of its device code.
        constants: of the kernel.
        warps: of a program of 32 references.
        never: functions that ids of a vocabulary do not need.
    """

    name: str
    module: str
    function: str
    constants: dict[str, Any]
    warps: int
    never: frozenset[str]

    def compiled(self) -> Program:
        """For compute capability 9.0, with int32 ids and offsets."""
        triton = import_module("triton")
        source = import_module("triton.compiler").ASTSource
        target = import_module("triton.backends.compiler").GPUTarget("cuda", 90, 32)
        kernel = getattr(import_module(f"flipfast_kernels.jit.{self.module}"), self.function)
        types = {"scores_ptr": "*fp64", "weights_ptr": "*fp32"}
        signature, values = {}, {}
        for at, name in enumerate(kernel.arg_names):
            usual = "*i32" if name.endswith("_ptr") else "i32"
            is_constant = name in self.constants
            signature[name] = "constexpr" if is_constant else types.get(name, usual)
            if is_constant:
                values[at,] = self.constants[name]
        options = {"num_warps": self.warps, "enable_fp_fusion": False}
        made = triton.compile(source(kernel, signature, values), target=target, options=options)
        return parse(told(made.asm["cubin"], "nvdisasm", "-c", "-gi"), JIT)


SORTED = Kernel(
    "both rows sorted by a thread",
    "overlap_sorted",
    "sorted_overlap_kernel",
    {"IS_MATRIX": False, "ROWS": 32, "BLOCK": LONGEST},
    1,
    frozenset({"_n_shared_of_any"}),
)
ALL_WITH_ALL = Kernel(
    "every id with every id",
    "overlap_f1",
    "overlap_kernel",
    {
        "weights_ptr": None,
        "IS_MATRIX": False,
        "ONE_BLOCK": True,
        "ROWS": 32,
        "BLOCK": LONGEST,
        "LANES": 4,
        "CHUNK": 16,
    },
    4,
    frozenset({"_other_copies"}),
)


def main() -> None:
    """Compile, count and print."""
    lines = [
        "| rows | predictions a reference | kernel | instructions a pair | ms to issue | share of "
        "the bandwidth | ms of integer lanes | share |",
        "|---|---|---|---|---|---|---|---|",
    ]
    square = np.full(PAIRS, LONGEST)
    cases = [("64 and 64 ids", each, square, square[::each]) for each in (1, 8)]
    found = instruction_lengths()
    if isinstance(found, str):
        print(found, file=sys.stderr)
    else:
        cases.append(("lengths of instructions", 1, *found))
    for kernel in (ALL_WITH_ALL, SORTED):
        program = kernel.compiled()
        for rows, each, predictions, references in cases:
            figures = predicted(kernel, program, predictions, references)
            cells = [rows, str(each), kernel.name, *figures]
            lines.append("| " + " | ".join(cells) + " |")
    print("\n".join([*lines, "", core_rate()]))


def predicted(
    kernel: Kernel, program: Program, predictions: np.ndarray, references: np.ndarray
) -> list[str]:
    """Cells of the table for pairs of rows of these lengths, scaled to PAIRS of them."""
    total: Counter[str] = Counter()
    for trips in _trips(kernel, predictions, references):
        for name, n in _executed(program, kernel.never, trips).items():
            total[name] += n * kernel.warps
    n_pairs = len(predictions)
    issued = total.total() / n_pairs
    alu = 2 * sum(n for name, n in total.items() if name in ALU) / n_pairs
    n_bytes = 4 * (predictions.sum() + references.sum() + len(references)) / n_pairs + 32
    copying = PAIRS * n_bytes / BANDWIDTH
    seconds = [PAIRS * cycles / CYCLES for cycles in (issued, alu)]
    timed = [cell for s in seconds for cell in (f"{1e3 * s:.2f}", f"{copying / s:.0%}")]
    return [f"{issued:.0f}", *timed]


def _trips(
    kernel: Kernel, predictions: np.ndarray, references: np.ndarray
) -> Iterator[tuple[tuple[str, tuple[int, ...]], ...]]:
    """Trips of the loops of each program, of 32 references with all of their predictions."""
    each = len(predictions) // len(references)
    for first in range(0, len(references), 32):
        longest = predictions[first * each : (first + 32) * each].max()
        assert max(longest, references[first : first + 32].max()) <= LONGEST
        # Copies are counted in references and in predictions, by loops over 16 ids.
        chunks = int(max(longest, references[first : first + 32].max()) + 15) // 16
        yield ((kernel.function, (each, 1)), ("_copies", (chunks,)))


_KNOWN: dict[Any, Counter[str]] = {}


def _executed(program: Program, never: frozenset[str], trips: Any) -> Counter[str]:
    """As `Program.executed`, kept: few programs differ."""
    key = id(program), trips
    if key not in _KNOWN:
        _KNOWN[key] = program.executed(dict(trips), never)
    return _KNOWN[key]


def instruction_lengths() -> tuple[np.ndarray, np.ndarray] | str:
    """Words of instructions, each as a prediction of others; why not, where there are none."""
    if not GROUPS.exists():
        return f"no lengths of instructions: {GROUPS} is missing"
    lengths = np.array([len(text.split()) for text in instructions()])
    pairs = [(np.roll(lengths, 1 + i), lengths) for i in range(8)]
    predictions, references = (np.concatenate(side) for side in zip(*pairs, strict=True))
    fits = np.maximum(predictions, references) <= LONGEST
    return predictions[fits], references[fits]


def instructions() -> list[str]:
    """The instructions of the groups of real text."""
    with gzip.open(GROUPS, "rt", encoding="utf-8") as file:
        return [json.loads(line)["instruction"] for line in file]


def core_rate() -> str:
    """Pairs a second of the C++ core, from text, on two threads of this machine."""
    from flipfast.metrics import CORE_AVAILABLE, overlap_f1

    if not CORE_AVAILABLE or not GROUPS.exists():
        return "The C++ core was not timed: it is not built, or there is no text."
    texts = instructions()
    pairs = [
        (texts[(i + j) % len(texts)], text) for j in range(1, 9) for i, text in enumerate(texts)
    ]
    predictions, references = (list(side) for side in zip(*pairs, strict=True))
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        overlap_f1(predictions, references, threads=2)
        best = min(best, time.perf_counter() - start)
    return f"C++ core, instructions as text, two threads here: {len(pairs) / best:,.0f} pairs/s"


if __name__ == "__main__":
    main()
