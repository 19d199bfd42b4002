"""The engine on CUDA devices that are none: where and in which order it would launch kernels."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from triton.runtime.interpreter import InterpretedFunction

from bench.gpu.fake_cuda import FakeCuda
from flipfast.engine.cuda_graphs import CudaRecorder
from flipfast.engine.lifecycle import LoadedModel
from flipfast.engine.ops.fp8 import quantising_bytes
from flipfast.engine.sampling import SamplingParams
from flipfast.engine.sequence import Sequence
from flipfast.errors import ConfigError
from flipfast_kernels import attention_tiles, gemm
from flipfast_kernels.launch import device_facts
from tests.engine.models.test_fp8 import BLOCKS
from tests.engine.models.test_fp8 import save as save_in_8_bits
from tests.engine.toy_models import SMALL, load, prompts, save_random_model

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")

SHAPE = {**SMALL, "vocab_size": 96, "num_hidden_layers": 1, "hidden_size": 32}
IDS = prompts([3, 20, 7], 96)
PARAMS = SamplingParams(max_new_tokens=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("m"), "Qwen3Config", **SHAPE)


@pytest.fixture(scope="module")
def folder_of_8_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = {"intermediate_size": 384, "head_dim": 64}
    return save_in_8_bits(tmp_path_factory.mktemp("m"), BLOCKS, **shape)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, request: Any) -> Iterator[FakeCuda]:
    """Two devices, which this thread sees, and those of `in_thread`; of a capability, or of 9.0."""
    found = FakeCuda(2, getattr(request, "param", 90))
    for name, value in found.names().items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.Tensor, "record_stream", found.record_stream())
    monkeypatch.setattr(InterpretedFunction, "run", found.launch)
    with found.mode():
        yield found
    for cached in (device_facts, gemm.configs_for, attention_tiles.configs_for):
        cached.cache_clear()


def load_on_cuda(folder: Path, **options: Any) -> LoadedModel:
    return load(folder, **{"device": None, "memory": 2**24, "max_seqs": 4, **options})


def in_thread(fake: FakeCuda, call: Callable[[], object]) -> None:
    """Run a call in a new thread, whose current device is the first."""
    errors: list[BaseException] = []

    def body() -> None:
        try:
            with fake.mode():
                call()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def generate(model: LoadedModel) -> None:
    sequences = [Sequence(ids, PARAMS) for ids in IDS]
    model.engine.generate(sequences)
    assert [sequence.error for sequence in sequences] == [None] * len(IDS)


@pytest.mark.parametrize("name", [None, "cuda"])
def test_any_thread_runs_on_the_device_of_the_load(
    folder: Path, fake: FakeCuda, name: str | None
) -> None:
    torch.cuda.set_device(1)
    model = load_on_cuda(folder, device=name)
    fake.launches.clear()
    in_thread(fake, lambda: generate(model))
    assert {launch.device for launch in fake.launches} == {1}
    assert model.token_device == torch.device("cuda", 1)


def kinds_of_products(model: LoadedModel) -> set[str]:
    assert model._runner is not None
    layer = model._runner.decoder._layers[0]
    return {type(part).__name__ for part in layer.linears()}


@pytest.mark.parametrize("weights", [None, "fp8"])
def test_steps_check_no_arguments(
    folder: Path, fake: FakeCuda, monkeypatch: pytest.MonkeyPatch, weights: str | None
) -> None:
    """The engine makes tensors that fit, and each check takes the host microseconds."""
    model = load_on_cuda(folder, weights=weights, cuda_graphs=False)
    for name in ("gemm", "fp8", "fp8_rows", "norm", "swiglu"):
        monkeypatch.setattr(f"flipfast_kernels.{name}._check", None)
    n = len(fake.launches)
    generate(model)
    assert len(fake.launches) > n


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize(
    ("weights", "products"),
    [(None, "TorchLinear"), ("float", "TorchLinear"), ("fp8", "Fp8Linear")],
)
def test_weights_of_8_bits(
    folder: Path, fake: FakeCuda, weights: str | None, products: str, deterministic: bool
) -> None:
    """All launched through graphs, and found again after sleep."""
    model = load_on_cuda(folder, weights=weights, deterministic=deterministic)
    assert kinds_of_products(model) == {products}
    assert model._runner is not None
    n_bytes = model._runner.decoder.weight_bytes()
    model.sleep()
    model.wake()
    generate(model)
    assert kinds_of_products(model) == {products}
    assert model._runner.decoder.weight_bytes() == n_bytes


@pytest.mark.parametrize(
    ("fake", "weights", "products"),
    [(90, None, "Fp8Linear"), (80, None, "TorchLinear"), (90, "float", "TorchLinear")],
    indirect=["fake"],
)
def test_checkpoints_of_8_bits_are_kept_where_there_are_products(
    folder_of_8_bits: Path, fake: FakeCuda, weights: str | None, products: str
) -> None:
    model = load_on_cuda(folder_of_8_bits, weights=weights, memory=2**26)
    assert kinds_of_products(model) == {products}


def test_rows_that_products_round_count_as_memory(folder: Path, fake: FakeCuda) -> None:
    """The widest that come as tensors: attention's."""
    needed = []
    for weights in ("float", "fp8"):
        with pytest.raises(ConfigError, match="too small") as error:
            load_on_cuda(folder, weights=weights, memory=2.0, max_tokens=64, max_seqs=8)
        needed.append(int(re.findall(r"needs (\d+) bytes", str(error.value))[0]))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    width = max(config["hidden_size"], config["num_attention_heads"] * config["head_dim"])
    assert needed[1] - needed[0] == quantising_bytes(64, width)


@pytest.mark.parametrize("fake", [86], indirect=True)
def test_devices_that_do_not_multiply_8_bits(folder: Path, fake: FakeCuda) -> None:
    message = "weights='fp8' needs compute capability 8.9 or newer, and cuda:0 has 8.6: leave"
    with pytest.raises(ConfigError, match=message):
        load_on_cuda(folder, weights="fp8")
    with pytest.raises(ConfigError, match="weights='fp8' is for CUDA, not for the CPU: use 'int8'"):
        load(folder, weights="fp8")


@pytest.mark.parametrize("deterministic", [True, False])
def test_graphs_are_recorded_again_after_sleep(
    folder: Path, fake: FakeCuda, deterministic: bool
) -> None:
    """Also where a workspace of cuBLAS keeps the pool of the earlier graphs."""
    model = load_on_cuda(folder, deterministic=deterministic)
    n = len(fake.captures)
    assert n > 0
    for _ in range(2):
        generate(model)
        model.sleep()
        model.wake()
    assert len(fake.captures) == 3 * n
    generate(model)


def test_engines_record_in_streams_of_their_own(folder: Path, fake: FakeCuda) -> None:
    """And in a mode that lets other threads allocate."""
    streams = []
    for _ in range(2):
        fake.captures.clear()
        load_on_cuda(folder)
        assert {mode for _, mode in fake.captures} == {"thread_local"}
        streams.append({stream for stream, _ in fake.captures})
    default = torch.cuda.default_stream().key
    assert [len(found) for found in streams] == [1, 1]
    assert streams[0].isdisjoint(streams[1] | {default})


def test_engines_that_load_at_once_record_one_after_the_other(fake: FakeCuda) -> None:
    """torch's allocator stands only one recording at a time in a process."""

    def record(recorder: CudaRecorder) -> object:
        with fake.mode():
            return [recorder(lambda: time.sleep(0.02) or torch.zeros(1)) for _ in range(3)]

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(record, [CudaRecorder(), CudaRecorder()]))
    assert len(fake.captures) == 6


@pytest.mark.parametrize("graphs", [True, False])
def test_steps_of_callers_in_different_streams_are_in_order(
    folder: Path, fake: FakeCuda, graphs: bool
) -> None:
    """Each launch follows the one before, and what a caller launched before it queued a request."""
    model = load_on_cuda(folder, cuda_graphs=graphs, drafting=False)
    rows = torch.zeros(len(IDS), 4, dtype=torch.int32, device="cuda")
    sequences = [Sequence(ids, PARAMS, output_row=row) for ids, row in zip(IDS, rows, strict=True)]
    fake.launches.clear()
    for sequence in sequences:
        with torch.cuda.stream(torch.cuda.Stream()):
            fake.launch()  # as that of the row's zeros
            model.engine.start([sequence])
            model.engine.step()
    while any(sequence.finish_reason is None for sequence in sequences):
        with torch.cuda.stream(torch.cuda.Stream()):
            model.engine.step()
    assert [sequence.error for sequence in sequences] == [None] * len(IDS)
    steps = [launch for launch in fake.launches if launch.stream == fake.launches[-1].stream]
    assert len(steps) == len(fake.launches) - len(IDS) > 20
    for launch, after in pairwise(fake.launches):
        assert after.follows(launch) or after not in steps
    assert {row.data_ptr() for row in fake.handed_over} == {row.data_ptr() for row in rows}


def test_decoding_rows_beside_prompts_are_launched_in_their_own_tile(
    folder: Path, fake: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no other step is launched twice."""
    found: list[list[int]] = []

    class Attend:
        def __getitem__(self, grid: object) -> Callable[..., None]:
            return lambda *_, **constants: found[-1].append(constants["BLOCK_M"])

    model = load_on_cuda(folder, cuda_graphs=False, drafting=False)
    module = import_module("flipfast_kernels.paged_attention")
    monkeypatch.setattr(module, "attend_kernel", Attend())

    def step(*lengths: int) -> list[int]:
        found.append([])
        model.engine.start([Sequence(ids, PARAMS) for ids in prompts(lengths, 96)])
        model.engine.step()
        return found[-1]

    assert step(3, 7) == [64]
    assert step() == [64]
    assert step(90) == [64, 128]
    assert step(20) == [64]
    model.engine.cancel_all()
    model.engine.forget_prefixes()
    assert step(100, 80) == [128]


def test_new_weights_are_in_place_before_the_next_step(folder: Path, fake: FakeCuda) -> None:
    model = load_on_cuda(folder)
    for change in (lambda: model.update_weights(folder), lambda: (model.sleep(), model.wake())):
        fake.launches.clear()
        with torch.cuda.stream(torch.cuda.Stream()):
            fake.launch()  # as that of a copy
            change()
        generate(model)
        assert all(launch.follows(fake.launches[0]) for launch in fake.launches[1:])
