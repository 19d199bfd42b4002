"""The text core on AlpacaEval-sized texts: words, F1, the parsers, draft lookup.

Each is C++ against Python on the same texts, with equal results. A peer is timed in turns with the
core on one thread; `flipfast_speedup` is how many times as fast the core was, median of the pairs.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from bench.models import EMBEDDED
from bench.sizes import Sizes, Workload
from bench.workloads import Groups, columns, take
from flipfast._core import Drafter, word_hashes
from flipfast.engine.sequence import MAX_DRAFT
from flipfast.metrics import overlap_f1
from flipfast.metrics.reference_words import word_hashes_py
from flipfast.metrics.word_f1_py import word_f1
from flipfast.parsing import parse_reference, parse_robust
from tests.draft.slow_drafter import SlowDrafter

_PEER_ROUNDS = 5
_DRAFTS: Any = ([MAX_DRAFT], 0.1)  # tokens of a draft; least chance of one to be right
_CHECKED_DRAFTS = 16  # the slow drafter takes its time

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
    if peer == "twin":
        run: Callable[[], Any] = lambda: twin(*pairs)  # noqa: E731
        assert core.tolist() == run()
    else:
        f1_score = published_f1(pytestconfig.getoption("--reference"))
        run = lambda: [f1_score(*pair) for pair in zip(*pairs, strict=True)]  # noqa: E731
        assert core[:, 0].tolist() == [x["f1"] if isinstance(x, dict) else x for x in run()]
    benchmark.group = "word F1"
    time_peer(benchmark, run, lambda: overlap_f1(*pairs, threads=1))
    note(benchmark, pairs=len(core))
    benchmark.extra_info["peer"] = peer


def published_f1(path: str | None) -> Any:
    """The published function, from the file that `--reference` names."""
    if not path:
        pytest.skip("needs --reference=FILE, the published module that has f1_score")
    spec: Any = importlib.util.spec_from_file_location("published", Path(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.f1_score


EXTRACTORS: dict[str, Callable[[str], Any]] = {
    "robust": lambda text: parse_robust(text)[0],
    "published": lambda text: parse_reference(text)[0],
}


@pytest.mark.parametrize("which", list(EXTRACTORS))
def bench_extract(benchmark: Any, pairs: Pairs, which: str) -> None:
    """The instruction in each output, which is an object on one line."""
    outputs = [
        json.dumps({"REASONING": x[:80], "INFERRED INSTRUCTION": x}, ensure_ascii=False)
        for x in pairs[1]
    ]
    assert list(map(EXTRACTORS[which], outputs)) == pairs[1]
    benchmark.group = "extract"
    benchmark(lambda: list(map(EXTRACTORS[which], outputs)))
    note(benchmark, outputs=len(outputs))


@pytest.fixture(scope="module")
def sources(pairs: Pairs) -> list[list[list[int]]]:
    """What outputs may repeat: the instruction and the response, as token ids."""
    tokenizer = Tokenizer.from_file(str(EMBEDDED / "tokenizer.json"))
    texts = zip(pairs[1], pairs[0], strict=True)
    found = ([tokenizer.encode(text).ids for text in pair] for pair in texts)
    return [[[-1, *instruction], response] for instruction, response in found]


def bench_draft_lookup(benchmark: Any, sources: list[list[list[int]]]) -> None:
    """Indices of many outputs' sources, and a draft for each that has begun."""
    begun = [(each, each[0][1:3]) for each in sources]
    slow = SlowDrafter(MAX_DRAFT)
    few = begun[:_CHECKED_DRAFTS]
    expected = [slow.propose(slow.open(*each), MAX_DRAFT, _DRAFTS[1]) for each in few]
    assert propose(few) == expected
    benchmark.group = "draft lookup"
    benchmark(propose, begun)
    note(benchmark, outputs=len(sources))


def propose(begun: list[tuple[list[list[int]], list[int]]]) -> Any:
    """Tokens and their chances, by a drafter that knows nothing else."""
    drafter = Drafter(MAX_DRAFT)
    handles = [drafter.open(*each) for each in begun]
    return drafter.propose(handles, _DRAFTS[0] * len(handles), _DRAFTS[1])


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
