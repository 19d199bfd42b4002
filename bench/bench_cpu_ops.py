"""The CPU kernels and torch's own on the same numbers, one group an operation and shape.

`extra_info` has the rate of the fastest round: the others measure what else the machine did. Bytes
and operations are those of the operation itself, whoever does it, as `flipfast profile` counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

import flipfast._cpu as _cpu
from bench.shapes import heads, products
from bench.sizes import FULL, QUICK
from flipfast.engine.attention.base import AttentionMetadata, AttentionShape
from flipfast.engine.attention.cpu import Backend
from flipfast.engine.ops.base import Ops, RopeTable
from flipfast.engine.ops.cpu import CpuOps
from flipfast.engine.ops.torch_ops import TorchOps
from flipfast.profiling import costs
from flipfast.profiling.recorder import Cost

SHAPE = "qwen3-0.6b"  # of attention and of operations on rows
HEADS, KV_HEADS, HEAD_DIM = heads(SHAPE)
HIDDEN, INNER = products(SHAPE)[3]
VOCABULARY = 32768  # of arg-max: a part of it shows the rate
PROMPT = 650
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def note(benchmark: Any, cost: Cost, **extra: Any) -> None:
    """The fastest round's rates."""
    seconds = benchmark.stats.stats.min
    benchmark.extra_info.update(
        gflop_per_s=round(cost.flops / seconds * 1e-9, 3),
        gb_per_s=round(cost.n_bytes / seconds * 1e-9, 3),
        isa=_cpu.isa(),
        **extra,
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    sizes = QUICK if metafunc.config.getoption("--quick") else FULL
    if "sides" in metafunc.fixturenames:  # inputs and outputs of a product
        metafunc.parametrize("sides", sizes.op_products, ids="{0[0]}x{0[1]}".format)
    if "n_rows" in metafunc.fixturenames:
        metafunc.parametrize("n_rows", sizes.op_rows, ids="rows={}".format)


# Operands, and what the weight is kept in.
PRODUCTS = {
    "float32": (torch.float32, torch.float32),
    "float32 from bfloat16": (torch.float32, torch.bfloat16),
    "bfloat16": (torch.bfloat16, torch.bfloat16),
}


@pytest.mark.parametrize("kind", list(PRODUCTS))
def bench_product(benchmark: Any, sides: tuple[int, int], n_rows: int, kind: str) -> None:
    dtype, source_dtype = PRODUCTS[kind]
    x, weight = numbers(n_rows, sides[0], seed=1), numbers(*sides[::-1]).bfloat16() / 8
    linear = CpuOps(dtype).linear(*weight.shape, bias=False, source_dtype=source_dtype)
    linear.load_rows(weight, 0)
    out = torch.empty(n_rows, sides[1])
    expected = x.to(dtype).double() @ weight.double().T
    torch.testing.assert_close(linear(x, out).double(), expected, rtol=1e-4, atol=1e-3)
    benchmark.group = _product(sides, n_rows)
    benchmark(linear, x, out)
    note(benchmark, costs.product(linear, x, out), dtype=kind)


@pytest.mark.parametrize("dtype", list(DTYPES))
def bench_torch_linear(benchmark: Any, sides: tuple[int, int], n_rows: int, dtype: str) -> None:
    x, weight = (
        part.to(DTYPES[dtype]) for part in (numbers(n_rows, sides[0]), numbers(*sides[::-1]))
    )
    benchmark.group = _product(sides, n_rows)
    out = benchmark(functional.linear, x, weight)
    n_bytes = x.nbytes + weight.nbytes + out.nbytes
    note(benchmark, Cost(n_bytes, 2.0 * x.numel() * sides[1]), dtype=dtype)


def _product(sides: tuple[int, int], n_rows: int) -> str:
    return f"product k={sides[0]} n={sides[1]} rows={n_rows}"


def row_operation(name: str, n: int) -> tuple[tuple[Any, ...], torch.Tensor]:
    """Arguments of an operation on n rows, and the one that it writes its result to."""
    x, weight = numbers(n, HIDDEN), numbers(HIDDEN, seed=1)
    out = torch.empty_like(x)
    ids = torch.arange(n) * 7 % 1000
    if name == "embed":
        return (ids, numbers(1000, HIDDEN), 1.0, out), out
    if name == "rms_norm":
        return (x, weight, 1e-6, out), out
    if name == "add_rms_norm":
        return (x, numbers(n, HIDDEN, seed=2), weight, 1e-6, out), out
    if name == "norm_rope":
        angles = torch.arange(PROMPT).float()[:, None] * 0.9 ** torch.arange(HEAD_DIM // 2)
        rope = RopeTable(angles.cos(), angles.sin())
        query = numbers(n, HEADS, HEAD_DIM)
        return (query, torch.arange(n) % PROMPT, rope, numbers(HEAD_DIM, seed=1), 1e-6), query
    if name == "gated":
        half = torch.empty(n, INNER)
        return (numbers(n, 2 * INNER), "silu", half), half
    return (numbers(n, VOCABULARY),), torch.empty(0)


def done(ops: Ops, name: str, n: int) -> torch.Tensor:
    """What an operation's result is."""
    arguments, out = row_operation(name, n)
    found = getattr(ops, name)(*arguments)
    return found if name == "argmax" else out


@pytest.mark.parametrize("which", ["cpu", "torch"])
@pytest.mark.parametrize(
    "name", ["embed", "rms_norm", "add_rms_norm", "norm_rope", "gated", "argmax"]
)
def bench_rows(benchmark: Any, name: str, n_rows: int, which: str) -> None:
    """An operation on rows, over and over on the same: norms keep their size, sums grow slowly."""
    plain = TorchOps(torch.device("cpu"), torch.float32)
    ours = CpuOps(torch.float32)
    torch.testing.assert_close(done(ours, name, n_rows), done(plain, name, n_rows))
    ops: Ops = ours if which == "cpu" else plain
    arguments, _ = row_operation(name, n_rows)
    benchmark.group = f"{name} rows={n_rows}"
    benchmark(getattr(ops, name), *arguments)
    cost = costs.OPS[name](ops, *arguments)
    note(benchmark, cost() if callable(cost) else cost, dtype="float32")


def step(
    n_seqs: int, new: int, length: int, dtype: torch.dtype
) -> tuple[Backend, Any, AttentionMetadata, torch.Tensor, torch.Tensor]:
    """A cache that holds n_seqs sequences, and the metadata of their last `new` tokens."""
    backend = Backend(AttentionShape(HEADS, KV_HEADS, HEAD_DIM, dtype, torch.device("cpu")))
    pages = -(-length // backend.page_size)
    cache = backend.allocate(n_seqs * pages)
    tables = torch.arange(n_seqs * pages, dtype=torch.int32).view(n_seqs, pages)
    slots = torch.cat([row[0] * backend.page_size + torch.arange(length) for row in tables])
    k, v = (numbers(n_seqs * length, KV_HEADS, HEAD_DIM, seed=seed) for seed in (1, 2))
    backend.write(k, v, cache, slots)
    metadata = AttentionMetadata(
        torch.arange(n_seqs + 1, dtype=torch.int32) * new,
        torch.full((n_seqs,), length, dtype=torch.int32),
        tables,
        slots.view(n_seqs, length)[:, -new:].flatten(),
        new,
        length,
    )
    return backend, cache, metadata, k, v


def peer_inputs(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, n_seqs: int, dtype: torch.dtype
) -> list[torch.Tensor]:
    return [x.to(dtype).unflatten(0, (n_seqs, -1)).transpose(1, 2) for x in (q, k, v)]


@pytest.fixture(params=[(1, PROMPT), (16, 1)], ids=["prefill", "decode"])
def queries(request: pytest.FixtureRequest) -> tuple[int, int, torch.Tensor]:
    """Sequences, new tokens of each, and as many queries."""
    n_seqs, new = request.param
    return n_seqs, new, numbers(n_seqs * new, HEADS, HEAD_DIM)


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("which", ["cpu", "sdpa"])
def bench_attention(
    benchmark: Any, queries: tuple[int, int, torch.Tensor], which: str, dtype: str
) -> None:
    """Over pages, and torch's over plain tensors."""
    n_seqs, new, q = queries
    _cpu.set_threads(torch.get_num_threads())
    backend, cache, metadata, k, v = step(n_seqs, new, PROMPT, DTYPES[dtype])
    out = torch.empty(len(q), HEADS * HEAD_DIM)
    call = (q, cache, metadata, out)
    options: dict[str, Any] = {"scale": HEAD_DIM**-0.5, "window": None, "softcap": None}
    backend.attend(*call, **options)
    expected = _sdpa(peer_inputs(q, k, v, n_seqs, torch.float32), new)()
    expected = expected.transpose(1, 2).flatten(0, 1).flatten(1)
    tolerance = 1e-5 if dtype == "float32" else 3e-2
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    benchmark.group = f"attention {n_seqs} x {new} of {PROMPT}"
    if which == "cpu":
        benchmark(backend.attend, *call, **options)
    else:
        inputs = [x.contiguous() for x in peer_inputs(q, k, v, n_seqs, DTYPES[dtype])]
        benchmark(_sdpa(inputs, new))
    cost = costs.attend(backend, *call)()
    note(benchmark, cost, dtype=dtype)


def _sdpa(inputs: list[torch.Tensor], new: int) -> Callable[[], torch.Tensor]:
    return lambda: functional.scaled_dot_product_attention(
        *inputs, is_causal=new > 1, enable_gqa=True
    )
