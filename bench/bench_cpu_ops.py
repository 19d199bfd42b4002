"""The CPU's products and its attention, and torch's on the same numbers.

`extra_info` has the rates of the fastest round, as the others measure what else the machine did,
and `speed_over_torch`. Bytes and operations are counted as `flipfast profile` does.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch.nn import functional

import flipfast._cpu as _cpu
from bench.shapes import heads
from bench.sizes import FULL, QUICK
from flipfast.engine.attention.base import AttentionMetadata, AttentionShape
from flipfast.engine.attention.cpu import Backend
from flipfast.engine.ops.cpu import CpuOps
from flipfast.profiling import costs
from flipfast.profiling.rates import measure_rates
from flipfast.profiling.recorder import Cost

HEADS, KV_HEADS, HEAD_DIM = heads("qwen3-0.6b")
PROMPT = 650
# Operands, and what a product's weight is kept in.
KINDS = {
    "float32": (torch.float32, torch.float32),
    "float32 from bfloat16": (torch.float32, torch.bfloat16),
    "bfloat16": (torch.bfloat16, torch.bfloat16),
}
measured_rates = cache(measure_rates)  # once a run


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    sizes = QUICK if metafunc.config.getoption("--quick") else FULL
    if "sides" in metafunc.fixturenames:
        metafunc.parametrize("sides", sizes.op_products, ids="{0[0]}x{0[1]}".format)
        metafunc.parametrize("n_rows", sizes.op_rows, ids="rows={}".format)


@pytest.mark.parametrize("kind", list(KINDS))
def bench_product(benchmark: Any, sides: tuple[int, int], n_rows: int, kind: str) -> None:
    dtype, source_dtype = KINDS[kind]
    x, weight = numbers(n_rows, sides[0], seed=1), numbers(*sides[::-1]).bfloat16() / 8
    linear = CpuOps(dtype).linear(*weight.shape, bias=False, source_dtype=source_dtype)
    linear.load_rows(weight, 0)
    out = torch.empty(n_rows, sides[1])
    expected = x.to(dtype).double() @ weight.double().T
    torch.testing.assert_close(linear(x, out).double(), expected, rtol=1e-4, atol=1e-3)
    benchmark.group = f"product, {kind}"
    benchmark(linear, x, out)
    operands = x.to(dtype), weight.to(dtype)
    note(benchmark, costs.product(linear, x, out), lambda: functional.linear(*operands), dtype)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize(("n_seqs", "new"), [(1, PROMPT), (16, 1)], ids=["prefill", "decode"])
def bench_attention(benchmark: Any, n_seqs: int, new: int, kind: str) -> None:
    """Over pages, and torch's over plain tensors."""
    dtype, tolerance = KINDS[kind][0], 1e-5 if kind == "float32" else 3e-2
    q = numbers(n_seqs * new, HEADS, HEAD_DIM)
    _cpu.set_threads(torch.get_num_threads())
    backend, cache_, metadata, k, v = step(n_seqs, new, dtype)
    out = torch.empty(len(q), HEADS * HEAD_DIM)
    call = (q, cache_, metadata, out)
    options: dict[str, Any] = {"scale": HEAD_DIM**-0.5, "window": None, "softcap": None}
    backend.attend(*call, **options)
    expected = sdpa(q, k, v, n_seqs, torch.float32)().transpose(1, 2).flatten(0, 1).flatten(1)
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    benchmark.group = f"attention, {kind}"
    benchmark(backend.attend, *call, **options)
    note(benchmark, costs.attend(backend, *call)(), sdpa(q, k, v, n_seqs, dtype), dtype)


def step(n_seqs: int, new: int, dtype: torch.dtype) -> tuple[Any, ...]:
    """A backend and its cache of n_seqs prompts, their last `new` tokens' metadata; k and v."""
    backend = Backend(AttentionShape(HEADS, KV_HEADS, HEAD_DIM, dtype, torch.device("cpu")))
    pages = -(-PROMPT // backend.page_size)
    cache_ = backend.allocate(n_seqs * pages)
    tables = torch.arange(n_seqs * pages, dtype=torch.int32).view(n_seqs, pages)
    slots = torch.cat([row[0] * backend.page_size + torch.arange(PROMPT) for row in tables])
    k, v = (numbers(n_seqs * PROMPT, KV_HEADS, HEAD_DIM, seed=seed) for seed in (1, 2))
    backend.write(k, v, cache_, slots)
    metadata = AttentionMetadata(
        torch.arange(n_seqs + 1, dtype=torch.int32) * new,
        torch.full((n_seqs,), PROMPT, dtype=torch.int32),
        tables,
        slots.view(n_seqs, PROMPT)[:, -new:].flatten(),
        new,
        PROMPT,
    )
    return backend, cache_, metadata, k, v


def sdpa(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, n_seqs: int, dtype: torch.dtype
) -> Callable[[], torch.Tensor]:
    """torch's own, on contiguous copies."""
    inputs = [
        x.to(dtype).unflatten(0, (n_seqs, -1)).transpose(1, 2).contiguous() for x in (q, k, v)
    ]
    return lambda: functional.scaled_dot_product_attention(
        *inputs, is_causal=len(q) > n_seqs, enable_gqa=True
    )


def note(benchmark: Any, cost: Cost, peer: Callable[[], Any], dtype: torch.dtype) -> None:
    """The fastest round's rates, those of the device, and how much faster that was than torch."""
    seconds, rates = benchmark.stats.stats.min, measured_rates(torch.device("cpu"), dtype)
    timer = timeit.Timer(peer)
    n_calls, _ = timer.autorange()
    benchmark.extra_info.update(
        gflop_per_s=round(cost.flops / seconds * 1e-9, 3),
        gb_per_s=round(cost.n_bytes / seconds * 1e-9, 3),
        speed_over_torch=round(min(timer.repeat(3, n_calls)) / n_calls / seconds, 3),
        copy_gb_per_s=round(1e-9 * rates.bytes_a_s, 2),
        product_gflop_per_s=round(1e-9 * rates.flops_a_s, 1),
        dtype=str(dtype).removeprefix("torch."),
        isa=_cpu.isa(),
    )
