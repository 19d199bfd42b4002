"""Our engine and others on the same requests in the same run; results are compared first.

Every engine runs in a process of its own. Each run of a peer stands between two of ours, and
`speed_over_<peer>` is the median of those comparisons. What pytest prints is the peer's time.
Peers that are not there are skipped with their reason, which is stored with the results. Packages
for peers alone can lie in folders that `--peer-path` names.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from bench.facts import peak_memory_mib
from bench.models import EMBEDDED, random_requests, save_random_model
from bench.peers.base import Job, PeerUnavailable
from bench.peers.interleaved import Interleaved, rates
from bench.peers.process import OURS, PeerProcess, Run
from bench.shapes import SHAPES
from bench.sizes import PEER_LOADS, Sizes
from bench.workloads import Groups, columns, take
from flipfast import FlipConfig, FlipReward
from flipfast.prompts.authors import load_authors_template
from flipfast.prompts.rendering import PromptRenderer
from flipfast.prompts.templates import get_template

CPU_PEERS = ["flipfast-fast", "transformers", "transformers-continuous", "llama.cpp", "ctranslate2"]
GPU_PEERS = ["flipfast-fast", "vllm", "sglang", "transformers-continuous", "transformers"]
QUICK_PEERS = ["transformers", "llama.cpp", "ctranslate2"]
GPU_SECONDS = 150.0  # for all of them; what would start later is skipped

# Least share of rows that must agree. In float32 these are whole outputs, of which a tie in the
# last bits may take one or the other; in bfloat16, where ties are common and everything behind one
# differs, the first tokens.
LEAST = {"float32": 0.9, "bfloat16": 0.5}

Open = Callable[[str, Job], PeerProcess]
Outputs = Sequence[Sequence[Any]]
Texts = tuple[list[str], list[str]]


@dataclass(frozen=True)
class Task:
    """Requests that engines are compared on."""

    name: str  # of the group of benchmarks
    job: Job  # what engines get ready for
    prompts: list[list[int]]  # token ids
    rounds: int  # of each peer

    @property
    def facts(self) -> dict[str, object]:
        """What a report needs to know of it."""
        n_prompt = sum(map(len, self.prompts))
        known = {"dtype": self.job.dtype, "n_rows": len(self.prompts), "prompt_tokens": n_prompt}
        return {**known, "max_new_tokens": self.job.n_new}

    def run(self, engine: PeerProcess) -> Run:
        """All requests, from an empty prefix cache."""
        return engine.run(self.prompts, self.job.n_new)


def embedded_config() -> dict[str, Any]:
    return dict(json.loads((EMBEDDED / "config.json").read_text("utf-8")))


def embedded_job(n_rows: int, n_new: int) -> Job:
    """The embedded inverter with prompts of up to its whole context."""
    config = embedded_config()
    n_prompt, ends = config["max_position_embeddings"] - n_new, (config["eos_token_id"],)
    return Job(str(EMBEDDED), "cpu", n_rows, n_prompt, n_new, ends, torch.get_num_threads())


def embedded_task(responses: list[str], n_new: int, rounds: int) -> Task:
    """The embedded inverter's own prompts for responses."""
    job, made_for = embedded_job(len(responses), n_new), embedded_config()["flipfast"]
    renderer = PromptRenderer(
        AutoTokenizer.from_pretrained(EMBEDDED),
        get_template(made_for["style"]),
        date=FlipConfig.prompt_date,
        thinking=False,
        max_prompt_tokens=job.n_prompt,
        max_response_tokens=made_for["max_response_tokens"],
    )
    prompts = [renderer.render(response).token_ids for response in responses]
    job = replace(job, n_prompt=max(map(len, prompts)))
    return Task("peers: embedded, rl-step", job, prompts, rounds)


def random_task(shape: str, device: str, folder: str) -> Task:
    """Random tokens for random weights, which are written to a folder."""
    load, vocab = PEER_LOADS[device], SHAPES[shape].config["vocab_size"]
    save_random_model(Path(folder), shape, device)
    if device == "cuda":
        torch.cuda.empty_cache()  # the engines are in other processes
    requests = random_requests(load.n, n_prompt=load.n_prompt, n_shared=load.n_shared, vocab=vocab)
    prompts, threads = [list(request.prompt_ids) for request in requests], torch.get_num_threads()
    job = Job(folder, device, load.n, load.n_prompt, load.n_out, (), threads)
    return Task(f"peers: {shape}, {device}", job, prompts, rounds=1)


@pytest.fixture(scope="session")
def open_peer(pytestconfig: pytest.Config) -> Open:
    """Loads an engine; on a CUDA device they have GPU_SECONDS in all."""
    paths = pytestconfig.getoption("--peer-path")
    ends: list[float] = []

    def open_one(name: str, job: Job) -> PeerProcess:
        if job.device == "cpu":
            return PeerProcess(name, job, paths=paths)
        ends.append(time.monotonic() + GPU_SECONDS)
        limit_s = ends[0] - time.monotonic()
        if limit_s <= 0:
            raise PeerUnavailable(f"the {GPU_SECONDS:.0f} s for peers on a device were over")
        return PeerProcess(name, job, paths=paths, limit_s=limit_s)

    return open_one


@pytest.fixture(scope="module")
def texts(sizes: Sizes, source: Groups | None) -> Texts:
    """Instructions and responses of an RL step, as many as peers get."""
    instructions, responses = columns(take(sizes.workloads["rl-step"], source))
    return instructions[: sizes.peer_rows], responses[: sizes.peer_rows]


@pytest.fixture(
    scope="module",
    params=[
        "embedded-cpu",
        "qwen3-0.6b-cpu",
        *(pytest.param(f"{x}-cuda", marks=pytest.mark.gpu) for x in ("qwen3-0.6b", "qwen3-8b")),
    ],
)
def task(request: pytest.FixtureRequest, texts: Texts, sizes: Sizes, quick: bool) -> Iterator[Task]:
    shape, _, device = request.param.rpartition("-")
    if shape == "embedded":
        yield embedded_task(texts[1], sizes.peer_new_tokens, sizes.rounds)
        return
    if quick and device == "cpu":
        pytest.skip("takes minutes: not with --quick")
    with tempfile.TemporaryDirectory() as folder:
        yield random_task(shape, device, folder)


@pytest.fixture(scope="module")
def ours(task: Task, open_peer: Open) -> Iterator[PeerProcess]:
    """Our engine, loaded for the task."""
    engine = open_or_skip(open_peer, OURS, task.job)
    yield engine
    engine.close()


def open_or_skip(open_peer: Open, name: str, job: Job) -> PeerProcess:
    """An engine, or a skip with the reason that it has."""
    try:
        return open_peer(name, job)
    except PeerUnavailable as error:
        pytest.skip(f"{name}: {error}")


def bench_flipfast(benchmark: Any, task: Task, ours: PeerProcess) -> None:
    """Our engine by itself, after it has given some requests the same outputs alone."""
    together = task.run(ours).outputs
    for i in {0, len(together) // 2, len(together) - 1}:
        [alone] = ours.run([task.prompts[i]], task.job.n_new).outputs
        assert alone == together[i], f"row {i} alone has another output"
    runs: list[Run] = []
    benchmark.group = task.name
    benchmark.pedantic(lambda: runs.append(task.run(ours)), rounds=task.rounds)
    benchmark.extra_info.update(**task.facts, **rates(runs), peer=OURS, settings=ours.settings)


@pytest.mark.parametrize("name", list(dict.fromkeys(CPU_PEERS + GPU_PEERS)))
def bench_peer(
    benchmark: Any, task: Task, ours: PeerProcess, open_peer: Open, name: str, quick: bool
) -> None:
    """A peer beside our engine, on the CPU in float32, on a CUDA device in bfloat16."""
    known = GPU_PEERS if task.job.device == "cuda" else QUICK_PEERS if quick else CPU_PEERS
    if name not in known:
        pytest.skip(f"not a peer on {task.job.device}, or not with --quick")
    benchmark.group = task.name
    peer = open_or_skip(open_peer, name, task.job)
    try:
        pair = Interleaved({OURS: lambda: task.run(ours)}, lambda: task.run(peer))
        measure(benchmark, name, pair, task.job.dtype, task.rounds)
    except PeerUnavailable as error:
        pytest.skip(f"{name}: {error}")
    finally:
        peer.close()
    benchmark.extra_info.update(**task.facts, peer_version=peer.version, settings=peer.settings)


def bench_published(
    benchmark: Any, pytestconfig: pytest.Config, texts: Texts, sizes: Sizes
) -> None:
    """The published pipeline beside the reward with its prompt and parser, in this process."""
    from bench.peers.huggingface import PublishedPipeline

    benchmark.group = "published pipeline: embedded, rl-step"
    folder = pytestconfig.getoption("--reference-prompts")
    template = load_authors_template(folder) if folder else get_template("standalone")
    instructions, responses = (column[: sizes.published_rows] for column in texts)
    longest = embedded_config()["flipfast"]["max_response_tokens"]
    peer = PublishedPipeline(embedded_job(1, sizes.peer_new_tokens), template, longest)
    options = {"prompts_dir": folder, "style": "standalone", "parser": "reference"}
    options |= {"max_new_tokens": sizes.peer_new_tokens, "on_failure": 0.0}
    with FlipReward(device="cpu", dtype="float32", **options) as reward:

        def ours() -> Run:
            reward.inverter.forget_prefixes()  # type: ignore[attr-defined]
            return timed_rewards(lambda: reward.score(instructions, responses).rewards)

        pair = Interleaved(
            {OURS: ours}, lambda: timed_rewards(lambda: peer.score(instructions, responses))
        )
        measure(benchmark, "published", pair, "float32", sizes.rounds)
    settings = {**peer.settings, "prompts": folder or "of this package"}
    benchmark.extra_info.update(
        peer_version=peer.version, settings=settings, dtype="float32", n_rows=len(responses)
    )


def timed_rewards(score: Callable[[], list[float | None]]) -> Run:
    """Rewards, each as a row of its own, and how long they took."""
    started = time.perf_counter()
    rewards = score()
    seconds = time.perf_counter() - started
    return Run([[reward] for reward in rewards], seconds, peak_memory_mib("cpu"), n_tokens=0)


def equal_rows(ours: Outputs, theirs: Outputs, dtype: str) -> float:
    """The share of rows with equal outputs, in bfloat16 with equal first tokens.

    Raises:
        AssertionError: it is too small, or rows are missing.
    """
    assert len(ours) == len(theirs), f"{len(theirs)} outputs for {len(ours)} prompts"
    n = None if dtype == "float32" else 1
    equal = [list(a[:n]) == list(b[:n]) for a, b in zip(ours, theirs, strict=True)]
    share = sum(equal) / len(equal)
    if share < LEAST[dtype]:
        at = equal.index(False)
        raise AssertionError(
            f"{share:.0%} of the rows agree, {LEAST[dtype]:.0%} must; the first that does not is "
            f"row {at}: {list(theirs[at][:8])}... where we have {list(ours[at][:8])}..."
        )
    return share


def measure(benchmark: Any, name: str, pair: Interleaved, dtype: str, rounds: int) -> None:
    """Compare results, which warms both up, then time the peer between runs of ours.

    Raises:
        AssertionError: the results differ.
    """
    equal = equal_rows(pair.ours[OURS]().outputs, pair.theirs().outputs, dtype)
    benchmark.pedantic(pair.run_theirs, setup=pair.run_ours, rounds=rounds)
    pair.run_ours()
    figures = {f"speed_over_{name}": pair.speed(OURS), "equal_rows": equal, "peer": name}
    ours = {f"{OURS}_{key}": value for key, value in rates(pair.our_runs[OURS]).items()}
    benchmark.extra_info.update(**rates(pair.their_runs), **ours, **figures)
