"""The text core on AlpacaEval-sized texts: words and F1.

Each is C++ against Python on the same texts, with equal results. A peer is timed in turns with the
core on one thread; `flipfast_speedup` is how many times as fast the core was, median of the pairs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from bench.sizes import Sizes, Workload
from bench.workloads import Groups, columns, take
from flipfast._core import word_hashes
from flipfast.metrics import overlap_f1
from flipfast.metrics.reference_words import word_hashes_py
from flipfast.metrics.word_f1_py import word_f1

_PEER_ROUNDS = 5

Pairs = tuple[list[str], list[str]]  # predictions and references


@pytest.fixture(scope="module")
def pairs(sizes: Sizes, source: Groups | None) -> Pairs:
    """Responses and instructions."""
    instructions, responses = columns(take(Workload(sizes.text_pairs // 8, 8), source))
    return responses, instructions


@pytest.mark.parametrize("which", ["core", "twin"])
def bench_words(benchmark: Any, pairs: Pairs, which: str) -> None:
    """The words of a text, hashed, as the published normalisation leaves them."""
    texts = tuple(pairs[0])
    for found, expected in zip(word_hashes(texts), word_hashes_py(texts), strict=True):
        np.testing.assert_array_equal(found, expected)
    benchmark.group = "words of a text"
    if which == "core":
        benchmark(word_hashes, texts)
    else:
        time_peer(benchmark, lambda: word_hashes_py(texts), lambda: word_hashes(texts))
    note(benchmark, texts=len(texts))


def twin(predictions: list[str], references: list[str]) -> list[list[float]]:
    """F1, precision and recall of pairs, by the package's own Python."""
    return [list(word_f1(*pair)) for pair in zip(predictions, references, strict=True)]


@pytest.mark.parametrize("threads", [1, 2, 0], ids="threads={}".format)
def bench_f1(benchmark: Any, pairs: Pairs, threads: int) -> None:
    assert overlap_f1(*pairs, threads=threads).tolist() == twin(*pairs)
    benchmark.group = "word F1"
    benchmark(overlap_f1, *pairs, threads=threads)
    note(benchmark, pairs=len(pairs[0]))


@pytest.mark.parametrize("peer", ["twin", "published"])
def bench_f1_peer(benchmark: Any, pytestconfig: pytest.Config, pairs: Pairs, peer: str) -> None:
    core = overlap_f1(*pairs, threads=1)
    run = twin if peer == "twin" else published(pytestconfig.getoption("--reference"))
    expected = run(*pairs)
    assert (core.tolist() if peer == "twin" else core[:, 0].tolist()) == expected
    benchmark.group = "word F1"
    time_peer(benchmark, lambda: run(*pairs), lambda: overlap_f1(*pairs, threads=1))
    note(benchmark, pairs=len(core))
    benchmark.extra_info["peer"] = peer


def published(path: str | None) -> Callable[..., list[Any]]:
    """F1 of pairs by the published function, from the file that `--reference` names."""
    if not path:
        pytest.skip("needs --reference=FILE, the published module that has f1_score")
    spec: Any = importlib.util.spec_from_file_location("published", Path(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(predictions: list[str], references: list[str]) -> list[float]:
        found = map(module.f1_score, predictions, references)
        return [one["f1"] if isinstance(one, dict) else one for one in found]

    return run


def time_peer(benchmark: Any, peer: Callable[[], Any], core: Callable[[], Any]) -> None:
    """Time a peer, each round right behind one of the core's."""
    seconds: list[float] = []

    def run_core() -> None:
        started = perf_counter()
        core()
        seconds.append(perf_counter() - started)

    benchmark.pedantic(peer, setup=run_core, rounds=_PEER_ROUNDS)
    ratios = [a / b for a, b in zip(benchmark.stats.stats.data, seconds, strict=True)]
    benchmark.extra_info["flipfast_speedup"] = round(median(ratios), 2)


def note(benchmark: Any, **numbers: int) -> None:
    """Add rates of the fastest round: the others measure what else the machine did."""
    seconds = benchmark.stats.stats.min
    rates = {f"{name}_per_s": round(n / seconds) for name, n in numbers.items()}
    benchmark.extra_info.update(rates)
