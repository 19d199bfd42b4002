"""Every kernel by itself at the sizes that steps have, beside what other libraries take.

Results are checked before anything is timed. Times are medians between CUDA events, with the L2
cache overwritten before each call; shares are of a copy's bandwidth in the same run.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import torch

from bench import kernel_cases as cases
from bench.gpu.place import Place
from bench.shapes import VOCABULARY, heads, products
from flipfast_kernels.fp8_rows import GROUP

SHAPES = ("qwen3-0.6b", "qwen3-8b")

Make = Callable[[], cases.Case]


def run(place: Place) -> None:
    """The most valuable first; one that fails loses itself alone."""
    for group, name, make in every(place):
        try:
            measure(place, group, f"{group}, {name}", make())
        except Exception as error:  # a kernel that does not run here says nothing about the others
            place.fail(f"{group}, {name}: {type(error).__name__}: {error}")
        gc.collect()
        torch.cuda.empty_cache()


def every(place: Place) -> Iterator[tuple[str, str, Make]]:
    """Group, name and case."""
    sizes, device = place.sizes, place.device
    for m in sizes.rows:
        for shape in SHAPES:
            for n_out, n_in in products(shape):
                name = f"{n_out} x {n_in}, {m} rows"
                yield "product", name, lambda a=n_out, b=n_in, m=m: cases.product(a, b, m, device)
    for shape in SHAPES:
        h, last = heads(shape), f"{heads(shape)[0]} heads"
        for n, length in sizes.decode:
            name = f"decode, {n} x {length}, {last}"
            yield (
                "attention",
                name,
                lambda n=n, k=length, h=h: cases.attention((n, 1, k), h, device),
            )
        n, length = sizes.prefill
        yield (
            "attention",
            f"prefill, {n} x {length}, {last}",
            lambda n=n, k=length, h=h: cases.attention((n, k, k), h, device),
        )
        n, length, whole = sizes.mixed
        yield (
            "attention",
            f"mixed, {n} and {whole} of {length}, {last}",
            lambda h=h: cases.mixed_attention(sizes.mixed, h, device),
        )
    for width in (1024, 4096):
        name = f"{VOCABULARY} x {width}, {sizes.rows[0]} rows"
        yield "lm_head", name, lambda k=width: cases.head(VOCABULARY, k, sizes.rows[0], device)
    for m in sizes.rows[:2]:
        yield "norm_rope_write", f"{m} rows", lambda m=m: cases.norm_rope(m, (16, 8, 128), device)
    for m in sizes.rows:
        for shape in SHAPES:
            n_out, n_in = products(shape)[2]  # gate and up
            name = f"{n_out} x {n_in}, {m} rows"
            for kind, group in (("fp8 product", None), ("fp8 product by groups", GROUP)):
                yield (
                    kind,
                    name,
                    lambda a=n_out, b=n_in, m=m, g=group: cases.fp8_product(a, b, m, device, g),
                )
    most, width = max(sizes.rows), products(SHAPES[0])[1][1]  # what attention writes
    yield "fp8 rows", f"{most} of {width}", lambda: cases.rounding(width, most, device)
    n = sizes.pairs
    many = 256 * n  # as `bench.kernel_count` predicts
    for each in (1, 8):
        name = f"{many} pairs, {each} a reference"
        yield "overlap_f1", name, lambda each=each: cases.overlap(many, each, 64, device)
    yield "word_f1", f"{n} rows", lambda: cases.words(n, 64, device)


def measure(place: Place, group: str, name: str, case: cases.Case) -> None:
    """Check a case, time it and its peers, and note the figures."""
    place.check(f"{name} is right", case.check)
    seconds = place.timer(case.run)
    figures = {
        "us": 1e6 * seconds,
        "gb_per_s": 1e-9 * case.n_bytes / seconds,
        "share_of_copy": case.n_bytes / seconds / place.rates.bytes_a_s,
        "copy_gb_per_s": 1e-9 * place.rates.bytes_a_s,
        "product_gflop_per_s": 1e-9 * place.rates.flops_a_s,
    }
    if case.flops:
        figures["tflop_per_s"] = 1e-12 * case.flops / seconds
    for peer, call in case.peers.items():
        theirs = place.timer(call)
        figures |= {f"{peer}_us": 1e6 * theirs, f"speed_over_{peer}": theirs / seconds}
    place.note(name, group, dtype="bfloat16", **figures)
