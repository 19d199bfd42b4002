"""Tuning problems for `search`: candidate tiles and workloads of the kernels worth tuning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from operator import itemgetter

import torch

from flipfast_kernels.attention_tiles import (
    AttentionConfig,
    attention_configs,
    check_attention_configs,
)
from flipfast_kernels.fp8 import linear_fp8, linear_fp8_ref
from flipfast_kernels.fp8_rows import FP8, Fp8Rows, quantize_rows
from flipfast_kernels.gemm import (
    LinearConfig,
    check_linear_configs,
    linear,
    linear_configs,
    linear_ref,
    pick_config,
)
from flipfast_kernels.launch import device_facts, power_of_two
from flipfast_kernels.paged_attention import paged_attention, paged_attention_ref
from flipfast_kernels.search import Pair, Problem, Workload

_TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2, FP8: 1.6e-2}
_PAGE = 16


def linear_problem(
    n_out: int,
    n_in: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    rows: Sequence[int] = (1, 16, 64, 256, 2048, 8192),
    quick: bool = False,
) -> Problem:
    """Products of `rows` rows with a weight of (n_out, n_in); 8-bit floats have a scale a row.

    A full step decodes 256 sequences, or reads 8,192 tokens of prompts.
    """
    capability, multiprocessors = device_facts(device)
    usual = linear_configs(n_out, n_in, dtype, capability)

    def make() -> list[Workload]:
        generator = torch.Generator(device).manual_seed(0)
        weight, x = (
            torch.randn(n, n_in, generator=generator, device=device) for n in (n_out, max(rows))
        )
        if dtype == FP8:
            weight8, x8 = quantize_rows(weight), quantize_rows(x)
            expected = linear_fp8_ref(x8, weight8)
        else:
            weight, x = weight.to(dtype), x.to(dtype)
            expected = linear_ref(x.double(), weight.double())

        def run(m: int, config: LinearConfig) -> torch.Tensor:
            if dtype == FP8:
                few = Fp8Rows(x8.numbers[:m], x8.scales[:m])
                return linear_fp8(few, weight8, config=config)
            return linear(x[:m], weight, config=config)

        def work(m: int) -> Workload:
            return Workload(
                f"{m} rows",
                lambda pair: pick_config(m, n_out, pair, multiprocessors),
                partial(run, m),
                expected[:m],
                _TOLERANCE[dtype],
            )

        return [work(m) for m in rows]

    pairs = list(dict.fromkeys(_linear_pairs(usual, dtype, capability, quick)))
    return Problem("gemm", {"n_out": n_out, "n_in": n_in, "dtype": _name(dtype)}, pairs, make)


def attention_problem(
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    n_heads: int = 16,
    n_kv_heads: int = 8,
    decode: tuple[int, int] = (256, 700),
    prefill: tuple[int, int] = (12, 650),
    quick: bool = False,
) -> Problem:
    """Attention of decode steps and of whole prompts; decode, prefill: (sequences, tokens)."""

    def make() -> list[Workload]:
        shapes = (("decode", 1, decode), ("prefill", prefill[1], prefill))
        return [
            _attention_work(
                name, sequences, queries, (n_heads, n_kv_heads, head_dim), dtype, device
            )
            for name, queries, sequences in shapes
        ]

    capability = device_facts(device)[0]
    bucket: dict[str, int | str] = {
        "block_d": max(power_of_two(head_dim), 16),
        "dtype": _name(dtype),
    }
    pairs = list(_attention_pairs(head_dim, dtype, capability, quick))
    return Problem("paged_attention", bucket, pairs, make)


def _attention_work(
    name: str,
    sequences: tuple[int, int],
    queries: int,
    heads: tuple[int, int, int],
    dtype: torch.dtype,
    device: torch.device,
) -> Workload:
    (n_seqs, length), (n_heads, n_kv_heads, head_dim) = sequences, heads
    generator = torch.Generator(device).manual_seed(0)
    width = -(-length // _PAGE)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    query = numbers(n_seqs * queries, n_heads, head_dim)
    keys, values = (numbers(n_seqs * width, _PAGE, n_kv_heads, head_dim) for _ in range(2))
    index = (
        torch.arange(n_seqs + 1, dtype=torch.int32, device=device) * queries,
        torch.full((n_seqs,), length, dtype=torch.int32, device=device),
        torch.randperm(n_seqs * width, generator=generator, device=device).int().view(n_seqs, -1),
    )
    scale = head_dim**-0.5

    def run(config: AttentionConfig) -> torch.Tensor:
        return paged_attention(
            query,
            keys,
            values,
            *index,
            max_seqlen_q=queries,
            max_seq_len=length,
            scale=scale,
            config=config,
            validate=False,
        )

    expected = paged_attention_ref(query, keys, values, *index, scale=scale)
    label = f"{name} {n_seqs} x {length}"
    return Workload(label, itemgetter(queries > 1), run, expected, _TOLERANCE[dtype])


def _linear_pairs(usual: Pair, dtype: torch.dtype, capability: int, quick: bool) -> Iterator[Pair]:
    yield usual
    few, many = usual
    depths, widths = [64, 128], (128, 256)
    if dtype == FP8:
        depths = [128]
    if dtype == torch.float32:
        depths, widths = [16, 32], (32, 64)
    for block_k in depths[:1] if quick else depths:
        lows, highs = (
            [
                replace(one, block_n=block_n, block_k=block_k, num_stages=num_stages)
                for block_n, num_stages in product(wide, stages[:1] if quick else stages)
            ]
            for one, wide, stages in ((few, (64, 32, 128), (4, 6, 3)), (many, widths, (3, 4)))
        )
        # Devices that need it have one configuration for both.
        for pair in zip(highs, highs, strict=True) if few == many else product(lows, highs):
            check_linear_configs(*pair, capability)
            yield pair


def _attention_pairs(
    head_dim: int, dtype: torch.dtype, capability: int, quick: bool
) -> Iterator[Pair]:
    usual = attention_configs(head_dim, dtype, capability)
    yield usual
    few, many = usual
    blocks = (32, 64) if quick else (16, 32, 64, 128)
    stages = (3, 5) if quick else (1, 2, 3, 4, 5)
    for block_n, num_stages in product(blocks, stages):
        change = {"block_n": block_n, "num_stages": num_stages}
        pair = (replace(few, **change), replace(many, **change))
        if pair != usual:
            check_attention_configs(*pair, capability)
            yield pair


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
