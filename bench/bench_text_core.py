"""The text core on AlpacaEval-sized texts: words, F1, the parsers, draft lookup.

Each is C++ against Python on the same texts, with equal results. A peer is timed in turns with the
core on one thread; `flipfast_speedup` is how many times as fast the core was, median of the pairs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from bench.f1_peers import PEERS, Pairs, twin
from bench.models import EMBEDDED
from bench.sizes import Sizes, Workload
from bench.workloads import Groups, columns, take
from flipfast._core import Drafter, ObjectScanner, word_hashes
from flipfast.engine.sequence import MAX_DRAFT
from flipfast.metrics import overlap_f1
from flipfast.metrics.reference_words import word_hashes_py
from flipfast.parsing import parse_reference, parse_robust
from tests.draft.slow_drafter import SlowDrafter

_PEER_ROUNDS = 5
_THRESHOLD = 0.1  # of the chance that a drafted token is right
_CHECKED_DRAFTS = 16  # the slow drafter takes its time


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
    note(benchmark, texts=len(texts), bytes=n_bytes(texts))


@pytest.mark.parametrize("threads", [1, 2, 0], ids="threads={}".format)
def bench_f1(benchmark: Any, pairs: Pairs, threads: int) -> None:
    assert overlap_f1(*pairs, threads=threads).tolist() == twin(*pairs)
    benchmark.group = "word F1"
    benchmark(overlap_f1, *pairs, threads=threads)
    note(benchmark, pairs=len(pairs[0]), bytes=n_bytes(*pairs))


@pytest.mark.parametrize("peer", ["twin", "published", "torchmetrics", "evaluate"])
def bench_f1_peer(benchmark: Any, pytestconfig: pytest.Config, pairs: Pairs, peer: str) -> None:
    core = overlap_f1(*pairs, threads=1)
    run, matches, remark = PEERS[peer](pairs, pytestconfig)
    assert matches(core)
    benchmark.group = "word F1"
    time_peer(benchmark, run, lambda: overlap_f1(*pairs, threads=1))
    note(benchmark, pairs=len(core), bytes=n_bytes(*pairs))
    benchmark.extra_info.update(peer=peer, note=remark)


def written(instructions: list[str], *, broken: bool) -> list[str]:
    """What a model writes: an object on one line, or such with line breaks, in fences, cut off."""
    objects = [
        {"REASONING": f"It is about {x[:80]}", "INFERRED INSTRUCTION": x} for x in instructions
    ]
    clean = [json.dumps(each, ensure_ascii=False) for each in objects]
    if not broken:
        return clean
    forms: list[Callable[[int], str]] = [
        lambda i: json.dumps(objects[i], indent=2),
        lambda i: f"```json\n{clean[i]}\n```",
        lambda i: f"Here it is: {clean[i]}",
        lambda i: f"{clean[i][:-1]},}}",
    ]
    return [forms[i % len(forms)](i) for i in range(len(clean))]


def scan(output: str) -> str:
    """The value that the C++ scanner finds closed."""
    data, scanner = output.encode(), ObjectScanner()
    scanner.feed(data)
    return str(json.loads(data[scanner.start - 1 : scanner.end + 1]))


def load_json(output: str) -> str:
    return str(json.loads(output)["INFERRED INSTRUCTION"])


EXTRACTORS: dict[str, tuple[Callable[[str], Any], bool]] = {
    "robust": (lambda text: parse_robust(text)[0], False),
    "robust, broken": (lambda text: parse_robust(text)[0], True),
    "published": (lambda text: parse_reference(text)[0], False),
    "scanner": (scan, False),
    "json": (load_json, False),
}


@pytest.mark.parametrize("which", list(EXTRACTORS))
def bench_extract(benchmark: Any, pairs: Pairs, which: str) -> None:
    """The instruction in each output; "scanner" and "json" do the heart of it, C++ and CPython."""
    extract, broken = EXTRACTORS[which]
    texts = written(pairs[1], broken=broken)
    assert list(map(extract, texts)) == pairs[1]
    benchmark.group = "extract"
    benchmark(lambda: list(map(extract, texts)))
    note(benchmark, outputs=len(texts), bytes=n_bytes(texts))


@pytest.fixture(scope="module")
def sources(pairs: Pairs) -> list[list[list[int]]]:
    """What outputs may repeat: the instruction and the response, as token ids."""
    tokenizer = Tokenizer.from_file(str(EMBEDDED / "tokenizer.json"))
    texts = zip(pairs[1], pairs[0], strict=True)
    found = ([tokenizer.encode(text).ids for text in pair] for pair in texts)
    return [[[-1, *instruction], response] for instruction, response in found]


@pytest.mark.parametrize("what", ["index", "propose"])
def bench_draft_lookup(benchmark: Any, sources: list[list[list[int]]], what: str) -> None:
    """Building the indices of many outputs' sources; a draft for each that has begun."""
    begun = [instruction[1:3] for instruction, _ in sources]
    few = slice(_CHECKED_DRAFTS)
    fast, slow = (drafts(Drafter(MAX_DRAFT), sources[few], begun[few]), slow_drafts(sources, begun))
    assert fast == slow
    benchmark.group = f"draft lookup, {what}"
    if what == "index":
        benchmark(lambda: opened(Drafter(MAX_DRAFT), sources, begun))
        n_tokens = sum(len(source) for pair in sources for source in pair)
    else:
        drafter = Drafter(MAX_DRAFT)
        handles = opened(drafter, sources, begun)
        found = benchmark(drafter.propose, handles, [MAX_DRAFT] * len(handles), _THRESHOLD)
        n_tokens = sum(len(tokens) for tokens, _ in found)
    note(benchmark, outputs=len(sources), tokens=n_tokens)


def opened(drafter: Any, sources: list[list[list[int]]], begun: list[list[int]]) -> list[int]:
    """Handles of outputs that have begun."""
    return [drafter.open(*each) for each in zip(sources, begun, strict=True)]


def drafts(drafter: Drafter, sources: list[list[list[int]]], begun: list[list[int]]) -> Any:
    handles = opened(drafter, sources, begun)
    return drafter.propose(handles, [MAX_DRAFT] * len(handles), _THRESHOLD)


def slow_drafts(sources: list[list[list[int]]], begun: list[list[int]]) -> list[Any]:
    slow = SlowDrafter(MAX_DRAFT)
    few = slice(_CHECKED_DRAFTS)
    handles = opened(slow, sources[few], begun[few])
    return [slow.propose(handle, MAX_DRAFT, _THRESHOLD) for handle in handles]


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


def n_bytes(*columns_: Any) -> int:
    """Of texts in UTF-8."""
    return sum(len(text.encode("utf-8", "surrogatepass")) for column in columns_ for text in column)
