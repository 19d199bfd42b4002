"""The CPU kernels and torch's own on the same numbers: products, attention, one group a shape."""

import pytest
import torch
from torch.nn import functional

from flipfast import _cpu
from flipfast.attention.base import AttentionMetadata, AttentionShape
from flipfast.attention.cpu import Backend
from flipfast.ops.cpu import CpuOps

THREADS = torch.get_num_threads()
# (k, n): gate and up, qkv, down of Qwen3-0.6B; gate and up, down of the embedded model.
PRODUCTS = [(1024, 3072), (1024, 4096), (3072, 1024), (320, 1792), (896, 320)]
ROWS = [1, 8, 32, 512]
HEADS, KV_HEADS, HEAD_DIM = 16, 8, 128  # Qwen3-0.6B
PROMPT = 650


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def report(benchmark, flop, **extra):
    """Rate of the fastest round: the others measure what else the machine did."""
    rate = flop / benchmark.stats.stats.min
    benchmark.extra_info.update(
        gflop_per_s=round(rate * 1e-9, 1), threads=THREADS, isa=_cpu.isa(), **extra
    )


@pytest.fixture(
    params=[(k, n, m) for k, n in PRODUCTS for m in ROWS], ids="{0[0]}x{0[1]}x{0[2]}".format
)
def product(request, benchmark):
    k, n, m = request.param
    benchmark.group = f"product k={k} n={n} rows={m}"
    return numbers(m, k, seed=1), numbers(n, k).bfloat16() / 8


@pytest.mark.parametrize(
    ("weight_dtype", "source_dtype"),
    [(torch.float32, torch.float32), (torch.float32, torch.bfloat16), (torch.bfloat16,) * 2],
    ids=["float32", "float32 from bfloat16", "bfloat16"],
)
def bench_product(benchmark, product, weight_dtype, source_dtype):
    x, weight = product
    linear = CpuOps(weight_dtype).linear(*weight.shape, bias=False, source_dtype=source_dtype)
    linear.load_rows(weight, 0)
    out = torch.empty(len(x), len(weight))
    expected = x.to(weight_dtype).double() @ weight.double().T
    torch.testing.assert_close(linear(x, out).double(), expected, rtol=1e-4, atol=1e-3)
    benchmark(linear, x, out)
    report(benchmark, 2 * x.numel() * len(weight), mbytes=linear.nbytes / 1e6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def bench_torch_linear(benchmark, product, dtype):
    x, weight = (part.to(dtype) for part in product)
    benchmark(functional.linear, x, weight)
    report(benchmark, 2 * x.numel() * len(weight))


def step(n_seqs, new, length, dtype):
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


def peer_inputs(q, k, v, n_seqs, dtype):
    return [x.to(dtype).unflatten(0, (n_seqs, -1)).transpose(1, 2) for x in (q, k, v)]


@pytest.fixture(params=[(1, PROMPT), (16, 1)], ids=["prefill", "decode"])
def attention(request, benchmark):
    """(sequences, new tokens of each), as many queries, and the multiply-adds times two."""
    n_seqs, new = request.param
    benchmark.group = f"attention {n_seqs} x {new} of {PROMPT}"
    pairs = n_seqs * sum(PROMPT - i for i in range(new))
    return n_seqs, new, numbers(n_seqs * new, HEADS, HEAD_DIM), 4 * pairs * HEADS * HEAD_DIM


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def bench_attention(benchmark, attention, dtype):
    n_seqs, new, q, flop = attention
    _cpu.set_threads(THREADS)
    backend, cache, metadata, k, v = step(n_seqs, new, PROMPT, dtype)
    out = torch.empty(len(q), HEADS * HEAD_DIM)
    options = {"scale": HEAD_DIM**-0.5, "window": None, "softcap": None}
    backend.attend(q, cache, metadata, out, **options)
    expected = functional.scaled_dot_product_attention(
        *peer_inputs(q, k, v, n_seqs, torch.float32), is_causal=new > 1, enable_gqa=True
    )
    expected = expected.transpose(1, 2).flatten(0, 1).flatten(1)
    tolerance = 1e-5 if dtype is torch.float32 else 3e-2
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    benchmark(backend.attend, q, cache, metadata, out, **options)
    report(benchmark, flop, mbytes=2 * k.numel() * dtype.itemsize / 1e6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def bench_sdpa(benchmark, attention, dtype):
    n_seqs, new, q, flop = attention
    k, v = (numbers(n_seqs * PROMPT, KV_HEADS, HEAD_DIM, seed=seed) for seed in (1, 2))
    inputs = [x.contiguous() for x in peer_inputs(q, k, v, n_seqs, dtype)]
    benchmark(functional.scaled_dot_product_attention, *inputs, is_causal=new > 1, enable_gqa=True)
    report(benchmark, flop)
