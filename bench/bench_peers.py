"""Our engine and others on the same requests in the same run; results are compared first.

Every engine runs in a process of its own. Each run of a peer stands between two of ours, and
`speed_over_<peer>` is the median of those comparisons. What pytest prints is the peer's time.
Peers that are not there are skipped with their reason, which is stored with the results. Packages
for peers alone can lie in folders that `--peer-path` names.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.floor import floor_seconds
from bench.peers import OURS
from bench.peers.base import Job, PeerUnavailable
from bench.peers.comparing import Interleaved, measure, rates
from bench.peers.process import PeerProcess, Run, peak_memory_mib
from bench.peers.published import PublishedPipeline
from bench.peers.tasks import Task, embedded_config, embedded_job, embedded_task, random_task
from bench.sizes import PEER_LOADS, Sizes
from bench.workloads import Groups, columns, take
from flipfast import FlipReward
from flipfast.prompts.authors import load_authors_template
from flipfast.prompts.templates import get_template

CPU_PEERS = ["flipfast-fast", "transformers", "transformers-continuous", "llama.cpp", "ctranslate2"]
GPU_PEERS = ["flipfast-fast", "vllm", "sglang", "transformers-continuous", "transformers"]
QUICK_PEERS = ["transformers", "llama.cpp", "ctranslate2"]
GPU_SHAPES = ["qwen3-0.6b", "qwen3-8b"]
GPU_SECONDS = 150.0  # for all of them; what would start later is skipped

Open = Callable[[str, Job], PeerProcess]
Texts = tuple[list[str], list[str]]


@dataclass(frozen=True)
class Ours:
    """Our engine with a task."""

    task: Task
    engine: PeerProcess

    def run(self) -> Run:
        """All of the task's requests, from an empty prefix cache."""
        return self.engine.run(self.task.prompts, self.task.job.n_new)


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


@pytest.fixture(scope="module")
def embedded(texts: Texts, sizes: Sizes) -> Task:
    return embedded_task(texts[1], sizes.peer_new_tokens, sizes.rounds)


@pytest.fixture(scope="module")
def qwen3(quick: bool) -> Iterator[Task]:
    if quick:
        pytest.skip("takes minutes: not with --quick")
    with tempfile.TemporaryDirectory() as folder:
        yield random_task("qwen3-0.6b", "cpu", PEER_LOADS["cpu"], Path(folder))


@pytest.fixture(scope="module", params=["embedded", "qwen3"])
def on_cpu(request: pytest.FixtureRequest, open_peer: Open) -> Iterator[Ours]:
    yield from answered(request.getfixturevalue(request.param), open_peer)


@pytest.fixture(scope="module", params=GPU_SHAPES)
def on_cuda(request: pytest.FixtureRequest, open_peer: Open) -> Iterator[Ours]:
    with tempfile.TemporaryDirectory() as folder:
        task = random_task(request.param, "cuda", PEER_LOADS["cuda"], Path(folder))
        yield from answered(task, open_peer)


def bench_flipfast(benchmark: Any, on_cpu: Ours) -> None:
    """Our engine by itself."""
    measure_ours(benchmark, on_cpu)


@pytest.mark.parametrize("name", CPU_PEERS)
def bench_peer(benchmark: Any, on_cpu: Ours, open_peer: Open, name: str, quick: bool) -> None:
    """A peer beside our engine, on the CPU in float32."""
    if quick and name not in QUICK_PEERS:
        pytest.skip("not with --quick")
    measure_peer(benchmark, on_cpu, open_peer, name)


@pytest.mark.gpu
def bench_flipfast_gpu(benchmark: Any, on_cuda: Ours, request: pytest.FixtureRequest) -> None:
    """Our engine by itself, with the share of the floor that memory and arithmetic set."""
    measure_ours(benchmark, on_cuda)
    if "H200" in torch.cuda.get_device_name():
        shape = request.node.callspec.params["on_cuda"]
        floor = len(on_cuda.task.prompts) / floor_seconds(shape, PEER_LOADS["cuda"])
        share = benchmark.extra_info["rewards_per_s"] / floor
        benchmark.extra_info.update(floor_rewards_per_s=floor, share_of_floor=share)


@pytest.mark.gpu
@pytest.mark.parametrize("name", GPU_PEERS)
def bench_peer_gpu(benchmark: Any, on_cuda: Ours, open_peer: Open, name: str) -> None:
    """A peer beside our engine, on a CUDA device in bfloat16."""
    measure_peer(benchmark, on_cuda, open_peer, name)


def bench_published(
    benchmark: Any, pytestconfig: pytest.Config, texts: Texts, sizes: Sizes
) -> None:
    """The published pipeline beside the reward with its prompt and parser, in this process."""
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

        def theirs() -> Run:
            return timed_rewards(lambda: peer.score(instructions, responses))

        measure(benchmark, "published", Interleaved(ours, theirs), "float32", sizes.rounds)
    settings = {**peer.settings, "prompts": folder or "of this package"}
    benchmark.extra_info.update(
        peer_version=peer.version, settings=settings, dtype="float32", n_rows=len(responses)
    )


def answered(task: Task, open_peer: Open) -> Iterator[Ours]:
    """Our engine, loaded for a task."""
    try:
        engine = open_peer(OURS, task.job)
    except PeerUnavailable as error:
        pytest.skip(f"{OURS}: {error}")
    try:
        yield Ours(task, engine)
    finally:
        engine.close()


def measure_ours(benchmark: Any, ours: Ours) -> None:
    """Time our engine, after it has given some requests the same outputs alone."""
    task, together = ours.task, ours.run().outputs
    for i in {0, len(together) // 2, len(together) - 1}:
        [alone] = ours.engine.run([task.prompts[i]], task.job.n_new).outputs
        assert alone == together[i], f"row {i} alone has another output"
    runs: list[Run] = []
    benchmark.group = task.name
    benchmark.pedantic(lambda: runs.append(ours.run()), rounds=task.rounds)
    benchmark.extra_info.update(
        **task.facts, **rates(runs), peer=OURS, settings=ours.engine.settings
    )


def measure_peer(benchmark: Any, ours: Ours, open_peer: Open, name: str) -> None:
    """Time a peer beside our engine, or skip it with the reason that it has."""
    task, benchmark.group = ours.task, ours.task.name
    try:
        peer = open_peer(name, task.job)
    except PeerUnavailable as error:
        pytest.skip(f"{name}: {error}")
    try:
        pair = Interleaved(ours.run, lambda: peer.run(task.prompts, task.job.n_new))
        measure(benchmark, name, pair, task.job.dtype, task.rounds)
    except PeerUnavailable as error:
        pytest.skip(f"{name}: {error}")
    finally:
        peer.close()
    benchmark.extra_info.update(**task.facts, peer_version=peer.version, settings=peer.settings)


def timed_rewards(score: Callable[[], list[float | None]]) -> Run:
    """Rewards, each as a row of its own, and how long they took."""
    started = time.perf_counter()
    rewards = score()
    seconds = time.perf_counter() - started
    return Run([[reward] for reward in rewards], seconds, peak_memory_mib("cpu"), n_tokens=0)
