"""Every kernel by itself on a CUDA device, beside what other libraries take for the same.

Results are checked before anything is timed. Times are medians between CUDA events, with the L2
cache overwritten before each call; shares are of a copy's bandwidth in the same run. What pytest
prints is the host's time around one call; the figures that count are in `extra_info`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

pytest.importorskip("triton")

from bench import kernel_cases as cases
from bench.shapes import QWEN3, VOCABULARY, heads, products
from flipfast.profiling.rates import measure_rates
from flipfast.profiling.recorder import Rates
from flipfast_kernels import tuning
from flipfast_kernels.search import Timer, cuda_timer

pytestmark = pytest.mark.gpu

ROWS = [1, 8, 32, 128, 512, 2048]
HEADS = [heads("qwen3-0.6b"), heads("qwen3-8b")]
PRODUCTS = [product for name in QWEN3 for product in products(name)]


class Gpu(NamedTuple):
    """The device, how calls on it are timed, and what it can do."""

    device: torch.device
    timer: Timer
    rates: Rates


@pytest.fixture(scope="module")
def gpu(request: pytest.FixtureRequest) -> Iterator[Gpu]:
    chosen = request.config.getoption("--tuning", None)
    tuning.use(Path(chosen) if chosen else None)
    device = torch.device("cuda", torch.cuda.current_device())
    yield Gpu(device, cuda_timer(device), measure_rates(device, torch.bfloat16))
    tuning.use(None)


@pytest.fixture(autouse=True)
def memory() -> Iterator[None]:
    yield
    gc.collect()
    torch.cuda.empty_cache()


@pytest.fixture
def measure(benchmark: Any, gpu: Gpu) -> Callable[[str, cases.Case], None]:
    """Check a case, time it and its peers, and note the figures."""

    def measured(group: str, case: cases.Case) -> None:
        benchmark.group = group
        case.check()
        seconds = gpu.timer(case.run)
        benchmark.pedantic(case.run, rounds=1)
        benchmark.extra_info.update(
            us=round(1e6 * seconds, 2),
            gb_per_s=round(1e-9 * case.n_bytes / seconds, 1),
            share_of_copy=round(case.n_bytes / seconds / gpu.rates.bytes_a_s, 3),
            copy_gb_per_s=round(1e-9 * gpu.rates.bytes_a_s, 1),
            product_gflop_per_s=round(1e-9 * gpu.rates.flops_a_s, 1),
            dtype="bfloat16",
        )
        if case.flops:
            benchmark.extra_info["tflop_per_s"] = round(1e-12 * case.flops / seconds, 2)
        for name, peer in case.peers.items():
            theirs = gpu.timer(peer)
            benchmark.extra_info[f"{name}_us"] = round(1e6 * theirs, 2)
            benchmark.extra_info[f"speed_over_{name}"] = round(theirs / seconds, 3)

    return measured


@pytest.mark.parametrize("m", ROWS)
@pytest.mark.parametrize("shape", PRODUCTS, ids="{0[0]}x{0[1]}".format)
def bench_gemm(measure: Any, gpu: Gpu, shape: tuple[int, int], m: int) -> None:
    measure("gemm", cases.product(*shape, m, gpu.device))


@pytest.mark.parametrize("m", [1, 64, 256])
@pytest.mark.parametrize("width", [1024, 4096])
def bench_lm_head(measure: Any, gpu: Gpu, width: int, m: int) -> None:
    measure("lm_head", cases.head(VOCABULARY, width, m, gpu.device))


# Sequences, queries of each, tokens of each.
@pytest.mark.parametrize(
    "sizes",
    [(1, 1, 700), (64, 1, 700), (256, 1, 700), (8, 1, 8192), (16, 650, 650), (2, 4096, 4096)],
)
@pytest.mark.parametrize("heads", HEADS, ids="{0[0]}-{0[1]}-{0[2]}".format)
def bench_attention(measure: Any, gpu: Gpu, heads: Any, sizes: Any) -> None:
    measure("attention", cases.attention(sizes, heads, gpu.device))


@pytest.mark.parametrize("m", [32, 4096])
def bench_norm_rope_write(measure: Any, gpu: Gpu, m: int) -> None:
    measure("norm_rope_write", cases.norm_rope(m, HEADS[0], gpu.device))


@pytest.mark.parametrize(("n_pairs", "each"), [(4096, 1), (4096, 8), (10**6, 1), (10**6, 8)])
def bench_overlap_f1(measure: Any, gpu: Gpu, n_pairs: int, each: int) -> None:
    measure("overlap_f1", cases.overlap(n_pairs, each, 64, gpu.device))


@pytest.mark.parametrize("n_rows", [256, 4096])
def bench_word_f1(measure: Any, gpu: Gpu, n_rows: int) -> None:
    measure("word_f1", cases.words(n_rows, 64, gpu.device))
