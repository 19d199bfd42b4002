"""Blocks from numbers and back, against the gguf package."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType

from flipfast.engine.ops.blocks import FLOAT_KINDS, KINDS, Blocks, quantised, widened


def gguf_blocks(numbers, kind):
    blocks = gguf.quants.quantize(numbers.float().numpy(), GGMLQuantizationType[kind])
    return torch.from_numpy(blocks)


def numbers(n, k):
    """Of all sizes, with ties, equal numbers, zeros and halves of a step.

    No -0.0: which zero is the least of several is up to numpy's vectors.
    """
    rng = torch.Generator().manual_seed(3)
    found = torch.randn(n, k, generator=rng)
    found[1::8] *= torch.logspace(-24, 3, k)
    found[2::8] = 0.0
    found[3::8] = -0.75
    found[4::8] = found[4::8].sign()
    found[5::8] = torch.randint(-254, 255, found[5::8].shape, generator=rng) / 2
    found[5::8, ::32] = 127.0
    found[6::8] = -found[6::8].abs()
    found[7::8] = 3e-6 * found[7::8]
    return found


@pytest.mark.parametrize("kind", FLOAT_KINDS)
class TestQuantised:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_equals_gguf(self, kind, dtype):
        values = numbers(80, 96).to(dtype) + 0.0
        blocks = quantised(values, kind)
        assert (blocks.kind, blocks.shape) == (kind, (80, 96))
        assert torch.equal(blocks.data, gguf_blocks(values, kind))

    def test_scales_are_rounded_to_nearest_even(self, kind):
        # Scales in all of float16's range, on its numbers, in the middle between two, beside it.
        halves = torch.arange(1, 0x7C00, 7, dtype=torch.int16).view(torch.float16).float()
        exact = torch.cat([halves, (halves[1:] + halves[:-1]) / 2])
        sizes = torch.cat([exact, exact * (1 + 2.0**-20), exact * (1 - 2.0**-20)])
        steps = {"Q8_0": 127, "Q4_0": -8, "Q4_1": 15}[kind]
        values = torch.zeros(len(sizes), 32)
        values[:, 5] = sizes * steps
        assert torch.equal(quantised(values, kind).data, gguf_blocks(values, kind))

    def test_rows_that_are_not_contiguous(self, kind):
        values = numbers(96, 64).T
        assert torch.equal(quantised(values, kind).data, gguf_blocks(values.contiguous(), kind))

    def test_many_blocks_are_shared_by_threads(self, kind):
        values = numbers(200, 1024)
        assert torch.equal(quantised(values, kind).data, gguf_blocks(values, kind))

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_what_is_not_finite_is_named(self, kind, value):
        values = numbers(9, 64)
        values[7, 40] = value
        with pytest.raises(ValueError, match=f"a weight of {value} cannot be quantised"):
            quantised(values, kind)


@pytest.mark.parametrize("kind", [*KINDS, "Q5_0", "Q5_1", "Q5_K"])
def test_widened_equals_gguf(kind):
    size, n_bytes = gguf.GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    rng = torch.Generator().manual_seed(1)
    data = torch.randint(0, 256, (2, 30, 3 * n_bytes), generator=rng, dtype=torch.uint8)
    with np.errstate(invalid="ignore"):
        expected = gguf.quants.dequantize(data.numpy(), GGMLQuantizationType[kind])
    found = widened(Blocks(kind, (2, 30, 3 * size), data))
    assert torch.equal(found.nan_to_num(), torch.from_numpy(expected).nan_to_num())
    assert torch.equal(found.isnan(), torch.from_numpy(expected).isnan())
