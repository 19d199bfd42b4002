"""The C++ text core and its Python twin on AlpacaEval-sized texts: response against instruction."""

from __future__ import annotations

from typing import Any

import pytest

from bench.sizes import Sizes, Workload
from bench.workloads import Groups, columns, take
from flipfast.metrics import overlap_f1
from flipfast.metrics.word_f1_py import word_f1

Pairs = tuple[list[str], list[str]]


@pytest.fixture(scope="module")
def pairs(sizes: Sizes, source: Groups | None) -> Pairs:
    """Responses and instructions."""
    instructions, responses = columns(take(Workload(sizes.text_pairs // 8, 8), source))
    return responses, instructions


def twin(predictions: list[str], references: list[str]) -> list[tuple[float, float, float]]:
    return [word_f1(*pair) for pair in zip(predictions, references, strict=True)]


def note(benchmark: Any, n_pairs: int) -> None:
    """Add the rate of the fastest round: the others measure what else the machine did."""
    benchmark.extra_info["pairs_per_s"] = round(n_pairs / benchmark.stats.stats.min)


@pytest.mark.parametrize("threads", [1, 2, 0], ids="threads={}".format)
def bench_core(benchmark: Any, pairs: Pairs, threads: int) -> None:
    expected = [list(row) for row in twin(*pairs)]
    assert overlap_f1(*pairs, threads=threads).tolist() == expected
    benchmark(overlap_f1, *pairs, threads=threads)
    note(benchmark, len(expected))


def bench_twin(benchmark: Any, pairs: Pairs) -> None:
    benchmark(twin, *pairs)
    note(benchmark, len(pairs[0]))
