"""What only a device can say of correctness, beyond the tests: sleep, and where bits are equal."""

from __future__ import annotations

from importlib import import_module
from itertools import product
from typing import Any

import torch

from bench.gpu.place import Place
from bench.kernel_cases import in_pages, numbers
from bench.models import random_model, random_requests
from bench.shapes import heads
from flipfast.engine.loading import load_engine
from flipfast.engine.options import EngineOptions
from flipfast.engine.sampling import SamplingParams
from flipfast.engine.sequence import Sequence
from flipfast_kernels.attention_tiles import configs_for
from flipfast_kernels.fp8 import linear_fp8
from flipfast_kernels.fp8_rows import GROUP, Fp8Rows, quantize_rows
from flipfast_kernels.gemm import LinearConfig, linear

SHAPE = "qwen3-0.6b"
attention: Any = import_module("flipfast_kernels.paged_attention")  # a function has its name


def run(place: Place) -> None:
    """Every check by itself."""
    products(place)
    fp8_products(place)
    splits(place)
    for deterministic in (True, False):
        sleep(place, deterministic)


def sleep(place: Place, deterministic: bool) -> None:
    """An engine writes the same before it sleeps and after, whose graphs are recorded anew."""
    spec, checkpoint = random_model(SHAPE, str(place.device))
    options = {"max_seqs": 8, "memory": 2e9, **place.sizes.engine, "deterministic": deterministic}
    engine = EngineOptions(device=str(place.device), **options)
    model = load_engine(spec, checkpoint, engine, end_ids=frozenset())
    requests = random_requests(4, n_prompt=20, n_shared=4, vocab=spec.vocab_size)

    def outputs() -> list[list[int]]:
        sequences = [Sequence(list(one.prompt_ids), SamplingParams(4)) for one in requests]
        model.engine.generate(sequences)
        errors = [sequence.error for sequence in sequences if sequence.error]
        assert not errors, errors[0]
        return [sequence.output_ids for sequence in sequences]

    before = outputs()
    model.sleep()
    model.wake()
    place.check(f"wake, deterministic={deterministic}", outputs() == before)
    model.close()


def products(place: Place) -> None:
    """Whether a row of a product has equal bits in all tiles and without tensor descriptors, as it
    has to; for other BLOCK_K it is noted.
    """
    x, weight = (
        numbers(place.device, torch.bfloat16, n, 1024, seed=seed)
        for seed, n in enumerate((place.sizes.rows[0], 4096))
    )
    usual = LinearConfig(64, 128, 64, 8, 4, 3)
    expected = linear(x, weight, config=usual)

    def equal(config: LinearConfig, weight: torch.Tensor = weight) -> bool:
        return torch.equal(linear(x, weight, config=config), expected)

    for (block_m, warps), block_n in product(((64, 4), (128, 4), (128, 8)), (32, 64, 128, 256)):
        if block_m * block_n <= 8192 * warps // 2:  # others have too many sums for a thread
            config = LinearConfig(block_m, block_n, 64, 8, warps, 3)
            place.check(f"product, {block_m} x {block_n}, {warps} warps", equal(config))
    wide = numbers(place.device, torch.bfloat16, 4096, 1028)[:, :1024].copy_(weight)
    place.check("product, without descriptors", equal(usual, wide))  # rows of 8-byte steps
    for block_k in (32, 128):
        config = LinearConfig(64, 128, block_k, 8, 4, 2)
        place.note(f"bits of a product, BLOCK_K {block_k}", "bits", equal=equal(config))


def fp8_products(place: Place) -> None:
    """The same of products of 8-bit floats, with one scale a row and with those of groups."""
    for group in (None, GROUP):
        x, weight = (
            quantize_rows(numbers(place.device, torch.bfloat16, n, 1024, seed=seed), group)
            for seed, n in enumerate((place.sizes.rows[0], 4096))
        )
        weight = Fp8Rows(weight.numbers, weight.scales.T.contiguous().T)
        found = [
            linear_fp8(x, weight, config=LinearConfig(block_m, block_n, GROUP, 8, warps, 3))
            for (block_m, warps), block_n in product(((64, 4), (64, 8), (128, 8)), (32, 64, 128))
        ]
        name = "one scale a row" if group is None else "groups"
        equal = all(torch.equal(one, found[0]) for one in found)
        place.check(f"product of 8 bits, {name}, all tiles", equal)


def splits(place: Place) -> None:
    """Attention has equal bits as one split and, with room for more keys, in a loop or parallel."""
    n_heads, n_kv_heads, head_dim = heads(SHAPE)
    n_seqs, length, device = 8, 700, place.device
    query = numbers(device, torch.bfloat16, n_seqs, n_heads, head_dim)
    kept = [
        numbers(device, torch.bfloat16, n_seqs * length, n_kv_heads, head_dim, seed=s)
        for s in (1, 2)
    ]
    pages, index = in_pages(*kept, n_seqs, 1)
    most = 2 * configs_for(head_dim, torch.bfloat16, device)[0].split
    usual, found = attention._mode, {}
    for mode in ("one", "loop", "parallel"):
        attention._mode = lambda *_, mode=mode: mode
        room = {"max_seqlen_q": 1, "max_seq_len": length if mode == "one" else most}
        found[mode] = attention.paged_attention(
            query, *pages, *index, **room, scale=head_dim**-0.5, validate=False
        )
    attention._mode = usual
    for mode in ("loop", "parallel"):
        place.check(f"attention, one = {mode}", torch.equal(found[mode], found["one"]))
