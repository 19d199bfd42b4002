"""Our engine and llama.cpp on the same GGUF files, on the CPU; outputs are compared first.

Each run of llama.cpp, of which pytest prints the time, stands between runs of ours: with drafts and
without, and with drafts on floats in place of the file's blocks. A run starts without prefixes and
outputs of earlier ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from bench.gguf_agreement import checked_agreement
from bench.gguf_files import requantise, write_random
from bench.models import random_requests
from bench.peers.base import Job, PeerUnavailable
from bench.peers.interleaved import Interleaved, rates
from bench.peers.process import OURS, PeerProcess, Run
from bench.scripted import random_outputs
from bench.shapes import SHAPES
from bench.sizes import FULL, GgufLoad, Sizes
from bench.workloads import Groups, columns, take
from flipfast.config import FlipConfig
from flipfast.engine.models.gguf.reader import open_gguf
from flipfast.engine.models.gguf.tokenizer import read_gguf_end_ids, read_gguf_tokenizer
from flipfast.metrics.word_f1_py import word_f1
from flipfast.parsing.plain import parse_plain
from flipfast.prompts.drafts import DraftWriter
from flipfast.prompts.rendering import PromptRenderer
from flipfast.prompts.templates import get_template
from flipfast.scoring.assembly import GET_SMALL, small_base

PLAIN, FLOAT, THEIRS = "flipfast-plain", "flipfast-float", "llama.cpp"
SCRIPTED, SCRIPTED_FLOAT = "flipfast-scripted", "flipfast-scripted-float"
ENGINES = (OURS, FLOAT, SCRIPTED, SCRIPTED_FLOAT, THEIRS)
SHAPE, ACCEPTANCE = "qwen3-0.6b", 0.8  # of a drafted token, where outputs are prescribed
ALONE = range(200, 321)  # tokens of a prompt that is scored alone
N_WARM_UP = 4  # rows that are scored alone before those that count

Hints = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A file that engines have loaded, and the requests for it."""

    name: str
    engines: Mapping[str, tuple[PeerProcess, Hints]]  # by the names of their settings
    prompts: list[list[int]]
    n_new: int  # most tokens of an output
    truths: Sequence[str] = ()  # the instructions, of real rows
    decode: Callable[[list[int]], str] = str  # an output's text

    def run(self, name: str) -> Run:
        """All requests in one call."""
        engine, hints = self.engines[name]
        return engine.run(self.prompts, self.n_new, **hints)

    def run_alone(self, name: str, places: Sequence[int], warm_up: Sequence[int] = ()) -> Run:
        """Some rows one at a time, behind others; `seconds` has each as long as the median one."""
        engine, hints = self.engines[name]
        runs = []
        for place in (*warm_up, *places):
            # Whatever there is for each row of a call, there is for this one.
            own = {k: [v[place]] if isinstance(v, list) else v for k, v in hints.items()}
            runs.append(engine.run([self.prompts[place]], self.n_new, keep=bool(runs), **own))
        runs = runs[len(warm_up) :]
        outputs = [output for run in runs for output in run.outputs]
        seconds = len(runs) * median_seconds(runs)
        n_tokens = sum(run.n_tokens for run in runs)
        return Run(outputs, seconds, runs[-1].peak_memory_mib, n_tokens)

    def interleaved(self, run: Callable[[str], Run], *names: str) -> Interleaved:
        """Runs of ours under some settings around those of llama.cpp."""
        ours = {name: lambda name=name: run(name) for name in names}  # type: ignore[misc]
        return Interleaved(ours, lambda: run(THEIRS))

    def rewards_of(self, outputs: Sequence[list[int]]) -> list[float]:
        """The word F1 of each output's instruction and the true one."""
        found = [parse_plain(self.decode(output), think_open=False)[0] for output in outputs]
        pairs = zip(found, self.truths, strict=True)
        return [word_f1(text, truth)[0] for text, truth in pairs]


@pytest.fixture(scope="module")
def paths(pytestconfig: pytest.Config) -> list[str]:
    return list(pytestconfig.getoption("--peer-path"))


@pytest.fixture(scope="module", params=FULL.gguf.kinds)
def real(
    request: pytest.FixtureRequest, sizes: Sizes, source: Groups | None, paths: list[str]
) -> Iterator[Case]:
    """SmolLM2-135M-Instruct with layers of some type, and FLIP's prompts around responses."""
    kind, base = request.param, small_base()
    if kind not in sizes.gguf.kinds:
        pytest.skip("not with --quick")
    if base is None:
        pytest.skip(f"SmolLM2-135M-Instruct is not installed: {GET_SMALL}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(base)
        if kind != "Q4_1":  # which is what the package has
            path = Path(folder) / f"{kind}.gguf"
            requantise(Path(base), path, kind)
        yield from real_case(f"SmolLM2-135M, {kind}", path, sizes.gguf, source, paths)


def real_case(
    name: str, path: Path, load: GgufLoad, source: Groups | None, paths: list[str]
) -> Iterator[Case]:
    file = open_gguf(path)
    tokenizer, end_ids = read_gguf_tokenizer(file), read_gguf_end_ids(file)
    template = get_template("direct")
    longest = load.max_response_tokens
    renderer = PromptRenderer(
        tokenizer,
        template,
        date=FlipConfig.prompt_date,
        thinking=False,
        max_prompt_tokens=2 * longest,
        max_response_tokens=longest,
    )
    instructions, responses = columns(take(load.workload, source))
    prompts = [renderer.render(response).token_ids for response in responses]
    write = DraftWriter(renderer.encoder, tokenizer.eos_token_id, wants_json=template.wants_json)
    drafts = [write(instruction) for instruction in instructions]
    job = job_of(path, prompts, load.n_new, len(renderer.prefixes()[0]), tuple(end_ids))
    with_drafts = {"drafts": drafts}
    hints = {OURS: with_drafts, PLAIN: {"drafting": False}, FLOAT: with_drafts, THEIRS: {}}
    engines = opened(job, {OURS: OURS, FLOAT: FLOAT}, hints, paths)

    def decode(output: list[int]) -> str:
        return str(tokenizer.decode(output, skip_special_tokens=True))

    yield Case(name, engines, prompts, load.n_new, instructions, decode)
    close(engines)


@pytest.fixture(scope="module", params=FULL.gguf.random_kinds)
def random(request: pytest.FixtureRequest, sizes: Sizes, paths: list[str]) -> Iterator[Case]:
    """Qwen3-0.6B's shape with random weights and prescribed outputs."""
    kind, load = request.param, sizes.gguf.prescribed
    if kind not in sizes.gguf.random_kinds:
        pytest.skip("not with --quick")
    vocab = SHAPES[SHAPE].config["vocab_size"]
    requests = random_requests(load.n, n_prompt=load.n_prompt, n_shared=load.n_shared, vocab=vocab)
    prompts = [list(each.prompt_ids) for each in requests]
    outputs = random_outputs([load.n_out] * load.n, vocab=vocab)
    plain, drafted = {"outputs": outputs}, {"outputs": outputs, "acceptance": ACCEPTANCE}
    hints = {OURS: drafted, PLAIN: plain, FLOAT: drafted, THEIRS: plain}
    names = {OURS: SCRIPTED, FLOAT: SCRIPTED_FLOAT}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{kind}.gguf"
        write_random(path, SHAPE, kind)
        engines = opened(job_of(path, prompts, load.n_out, load.n_shared, ()), names, hints, paths)
        yield Case(f"{SHAPE}, {kind}", engines, prompts, load.n_out)
        close(engines)


def job_of(
    path: Path, prompts: list[list[int]], n_new: int, n_shared: int, end_ids: tuple[int, ...]
) -> Job:
    longest, threads = max(map(len, prompts)), torch.get_num_threads()
    return Job(str(path), "cpu", len(prompts), longest, n_new, end_ids, threads, n_shared)


def opened(
    job: Job, names: Mapping[str, str], hints: Mapping[str, Hints], paths: list[str]
) -> dict[str, tuple[PeerProcess, Hints]]:
    """The engines for all settings, or a skip with llama.cpp's reason.

    Args:
        job: what they get ready for.
        names: of PEERS, for our settings; without drafts it is the engine that has them otherwise.
        hints: for all settings, what each run is told besides the prompts.
        paths: of peers' packages.
    """
    try:
        engines = {THEIRS: PeerProcess(THEIRS, job, paths=paths)}
    except PeerUnavailable as error:
        pytest.skip(f"{THEIRS}: {error}")
    engines |= {key: PeerProcess(name, job) for key, name in names.items()}
    engines[PLAIN] = engines[OURS]
    return {key: (engines[key], own) for key, own in hints.items()}


def close(engines: Mapping[str, tuple[PeerProcess, Hints]]) -> None:
    for engine in {engine for engine, _ in engines.values()}:
        engine.close()


def bench_gguf(benchmark: Any, real: Case) -> None:
    """All rows in one call."""
    pair = real.interleaved(real.run, OURS, PLAIN, FLOAT)
    outputs = pair.ours[OURS]().outputs
    floats = pair.ours[FLOAT]().outputs
    agreed = checked_agreement(outputs, pair.theirs().outputs, floats, real.rewards_of)
    real.run_alone(FLOAT, range(N_WARM_UP))
    measure(benchmark, real, pair, f"peers: {real.name}")
    for name in (OURS, PLAIN):
        assert all(run.outputs == outputs for run in pair.our_runs[name]), "drafts change outputs"
    benchmark.extra_info.update(agreed)


def bench_gguf_alone(benchmark: Any, real: Case, sizes: Sizes) -> None:
    """Rows one at a time, the template's start known; figures are those of the median row, but what
    pytest prints is the time of all rows, those before them included.
    """
    fits = [place for place, prompt in enumerate(real.prompts) if len(prompt) in ALONE]
    places, warm_up = fits[: sizes.gguf.alone], fits[sizes.gguf.alone :][:N_WARM_UP]
    pair = real.interleaved(lambda name: real.run_alone(name, places, warm_up), OURS)
    measure(benchmark, real, pair, f"peers: {real.name}, one row at a time", rounds=2)
    runs = {OURS: pair.our_runs[OURS], THEIRS: pair.their_runs}
    n = len(places)
    ms = {f"{name}_ms_a_row": 1e3 * median_seconds(own) / n for name, own in runs.items()}
    benchmark.extra_info.update(ms, n_rows=n)


def bench_gguf_random(benchmark: Any, random: Case) -> None:
    """All rows in one call, with random weights."""
    pair = random.interleaved(random.run, OURS, PLAIN, FLOAT)
    for name in (OURS, FLOAT, THEIRS):
        random.run_alone(name, range(1))  # reads the weights
    measure(benchmark, random, pair, f"peers: {random.name}")


def measure(benchmark: Any, case: Case, pair: Interleaved, group: str, rounds: int = 1) -> None:
    """Time llama.cpp between runs of ours, and note the figures of all."""
    benchmark.group = group
    benchmark.pedantic(pair.run_theirs, setup=pair.run_ours, rounds=rounds)
    pair.run_ours()
    figures = {f"{n}_{k}": v for n, runs in pair.our_runs.items() for k, v in rates(runs).items()}
    figures |= {f"{name}_speed_over_{THEIRS}": pair.speed(name) for name in pair.ours}
    if FLOAT in pair.ours:
        seconds = {name: median_seconds(pair.our_runs[name]) for name in (OURS, FLOAT)}
        figures["speed_over_float"] = seconds[FLOAT] / seconds[OURS]
    peer, ours = case.engines[THEIRS][0], case.engines[OURS][0]
    benchmark.extra_info.update(
        **rates(pair.their_runs),
        **figures,
        **{f"speed_over_{THEIRS}": pair.speed(OURS)},
        peer=f"{THEIRS} on {case.name}",
        peer_version=peer.version,
        settings=peer.settings,
        our_settings=ours.settings,
        n_rows=len(case.prompts),
        prompt_tokens=sum(map(len, case.prompts)),
        max_new_tokens=case.n_new,
    )


def median_seconds(runs: Sequence[Run]) -> float:
    return median(run.seconds for run in runs)
