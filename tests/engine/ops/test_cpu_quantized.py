"""Products of quantised weights, at every level of instructions that this CPU has."""

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType

import flipfast._cpu as _cpu
from flipfast.engine.ops.blocks import KINDS
from flipfast.engine.ops.cpu import CpuOps
from flipfast.engine.ops.cpu_quantized import QuantizedCpuLinear
from tests.engine.ops.products import numbers, run

SHAPES = [(1, 256), (33, 512), (100, 768), (64, 2048)]
ROWS = [0, 1, 2, 5, 7, 13, 17, 40]
SCALES = {"Q4_0": (0,), "Q4_1": (0, 2), "Q8_0": (0,), "Q4_K": (0, 2), "Q6_K": (208,)}


@pytest.fixture(autouse=True)
def threads():
    CpuOps(torch.float32, threads=2)
    yield
    _cpu.set_threads(torch.get_num_threads())


def random_blocks(kind, n_out, n_in, seed=0):
    """Rows of any bytes, with scales of either sign, some of them tiny."""
    per_block, size = KINDS[kind]
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (n_out * n_in // per_block, size), dtype=np.uint8)
    for place in SCALES[kind]:
        scales = random.normal(0, 0.01, len(blocks)).astype(np.float16)
        scales[::17] = 3e-7
        blocks[:, place : place + 2] = scales[:, None].view(np.uint8)
    return torch.from_numpy(blocks.reshape(n_out, -1))


def dequantized(blocks, kind):
    return torch.from_numpy(gguf.quants.dequantize(blocks.numpy(), GGMLQuantizationType[kind]))


def product(blocks, kind, n_in, bias=None):
    linear = QuantizedCpuLinear(len(blocks), n_in, bias=bias is not None)
    linear.load_blocks(blocks, kind, 0)
    if bias is not None:
        linear.load_bias(bias, 0)
    return linear


def quantized_rows(x):
    """x as products take it, in float64: bytes with a scale for every 32 numbers."""
    blocks = x.unflatten(1, (-1, 32))
    most = blocks.abs().amax(2, keepdim=True)
    q = (blocks * torch.where(most > 0, 127 / most, 0)).round()
    assert q.abs().max() <= 127
    return (q.double() * (most / 127).double()).flatten(1)


@pytest.mark.parametrize("kind", KINDS)
class TestKinds:
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_equals_the_float64_product(self, isa, kind, shape):
        blocks, bias = random_blocks(kind, *shape), numbers(shape[0], seed=1)
        weight = dequantized(blocks, kind).double()
        size = torch.zeros_like(weight)
        for place in SCALES[kind]:  # without the other scale: what has it may cancel
            part = blocks.view(-1, KINDS[kind][1]).clone()
            for other in set(SCALES[kind]) - {place}:
                part[:, other : other + 2] = 0
            size += dequantized(part.view(shape[0], -1), kind).double().abs()
        linear = product(blocks, kind, shape[1], bias)
        for n in ROWS[1:]:
            x = numbers(n, shape[1], seed=n) * 10 ** numbers(n, 1, seed=n)
            taken = quantized_rows(x)
            expected = taken @ weight.T + bias.double()
            # Two additions for every block, and a few roundings before them.
            bound = (taken.abs() @ size.T + bias.double().abs()) * (shape[1] / 16 + 6) * 2**-24
            assert ((run(linear, x).double() - expected).abs() <= bound).all()

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_has_the_same_bits_at_every_level(self, isa, kind, shape):
        blocks, x = random_blocks(kind, *shape), numbers(40, shape[1])
        result = run(product(blocks, kind, shape[1]), x)
        _cpu.set_isa("generic")
        assert torch.equal(result, run(product(blocks, kind, shape[1]), x))

    def test_a_row_has_the_same_bits_in_every_batch(self, isa, kind):
        linear = product(random_blocks(kind, 100, 512), kind, 512, numbers(100))
        x = numbers(70, 512, seed=3)
        alone = torch.cat([run(linear, x[i : i + 1]) for i in range(len(x))])
        for n in (*range(2, 20), 31, 33, 64, 70):
            assert torch.equal(run(linear, x[:n]), alone[:n])
            assert torch.equal(run(linear, x[-n:]), alone[-n:])
        others = numbers(70, 512, seed=4) * 1e4
        others[37] = x[37]
        assert torch.equal(run(linear, others)[37], alone[37])
        assert torch.equal(run(linear, x.repeat(12, 1))[-70:], alone)

    def test_threads_do_not_matter(self, isa, kind):
        linear = product(random_blocks(kind, 300, 256), kind, 256)
        results = []
        for n in (1, 2, 3):
            _cpu.set_threads(n)
            results.append(run(linear, numbers(60, 256)))
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])

    @pytest.mark.parametrize("shape", [(1, 256), (70, 1024)], ids=str)
    def test_rows_come_out_as_gguf_dequantises_them(self, kind, shape):
        blocks = random_blocks(kind, *shape)
        linear, weight = product(blocks, kind, shape[1]), dequantized(blocks, kind)
        ids = torch.tensor([0, shape[0] - 1, shape[0] // 2, 0])
        wide = torch.full((4, shape[1] + 5), float("nan"))
        out = wide[:, 2:-3]
        assert linear.embed(ids, 1.0, out) is out
        assert torch.equal(out, weight[ids])
        assert torch.equal(linear.embed(ids, 0.3, out), weight[ids] * 0.3)
        assert wide[:, :2].isnan().all()
        assert wide[:, -3:].isnan().all()

    def test_is_hardly_larger_than_in_the_file(self, kind):
        blocks = random_blocks(kind, 576, 1536)
        limit = 1.03 if kind == "Q4_K" else 1
        assert product(blocks, kind, 1536).nbytes <= limit * blocks.numel()


class TestRows:
    def test_kinds_lie_side_by_side(self, isa):
        x, bias = numbers(9, 512), numbers(165)
        linear = QuantizedCpuLinear(165, 512, bias=True)
        linear.load_bias(bias, 0)
        expected, first = [], 0
        for kind, n in zip(KINDS, (40, 7, 64, 1, 33), strict=True):
            blocks = random_blocks(kind, n, 512, seed=n)
            linear.load_blocks(blocks, kind, first)
            expected.append(run(product(blocks, kind, 512, bias[first : first + n]), x))
            first += n
        expected.append(bias[first:].expand(9, -1))  # rows that nothing was loaded to
        assert torch.equal(run(linear, x), torch.cat(expected, 1))
        ids = torch.tensor([140, 39, 164])
        rows = linear.embed(ids, 1.0, torch.empty(3, 512))
        assert torch.equal(
            rows[0], dequantized(random_blocks("Q6_K", 33, 512, seed=33), "Q6_K")[28]
        )
        assert torch.equal(
            rows[1], dequantized(random_blocks("Q4_0", 40, 512, seed=40), "Q4_0")[39]
        )
        assert not rows[2].any()

    def test_rows_are_loaded_over_again(self):
        linear, x = product(random_blocks("Q4_K", 50, 256), "Q4_K", 256), numbers(3, 256)
        blocks = random_blocks("Q8_0", 50, 256)
        linear.load_blocks(blocks, "Q8_0", 0)
        assert torch.equal(run(linear, x), run(product(blocks, "Q8_0", 256), x))

    @pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_floats_are_quantised_as_gguf_does(self, kind, dtype):
        weight = (numbers(70, 96).T.contiguous().T * 0.1).to(dtype)
        linear = QuantizedCpuLinear(70, 96, bias=False, kind=kind)
        linear.load_rows(weight, 0)
        rows = linear.embed(torch.arange(70), 1.0, torch.empty(70, 96))
        blocks = gguf.quants.quantize(weight.float().numpy(), GGMLQuantizationType[kind])
        assert torch.equal(rows, dequantized(torch.from_numpy(blocks), kind))
        x = numbers(5, 96)
        assert torch.equal(run(linear, x), run(product(torch.from_numpy(blocks), kind, 96), x))

    def test_numbers_that_are_none_stay_in_their_row(self, isa):
        linear, x = product(random_blocks("Q4_1", 40, 64), "Q4_1", 64), numbers(9, 64)
        before = run(linear, x)
        x[2, 5], x[7, 63], x[8, 0] = float("nan"), float("inf"), -float("inf")
        after = run(linear, x)
        assert after[[2, 7, 8]].isnan().all()
        kept = [0, 1, 3, 4, 5, 6]
        assert torch.equal(after[kept], before[kept])

    def test_the_least_and_the_greatest_numbers(self, isa):
        weight = torch.eye(64) * 127
        linear = QuantizedCpuLinear(64, 64, bias=False)
        linear.load_rows(weight, 0)
        x = torch.zeros(3, 64)
        x[0, 3], x[1, 40], x[2, 7] = 1e-45, -2e36, 2.0**-119
        expected = x.double() * 127
        expected[0] = 0
        torch.testing.assert_close(run(linear, x).double(), expected, rtol=1e-6, atol=0)

    def test_strides(self, isa):
        blocks, wide = random_blocks("Q8_0", 40, 64), numbers(20, 90)
        out = torch.full((20, 64), float("nan"))
        product(blocks, "Q8_0", 64)(wide[:, 7:71], out[:, 3:43])
        expected = run(product(blocks, "Q8_0", 64), wide[:, 7:71].contiguous())
        assert torch.equal(out[:, 3:43], expected)
        assert out[:, :3].isnan().all()
        assert out[:, 43:].isnan().all()

    def test_wrong_arguments_are_named(self):
        linear = QuantizedCpuLinear(40, 64, bias=False)
        blocks = random_blocks("Q8_0", 40, 64)
        with pytest.raises(ValueError, match="33 are no multiple"):
            QuantizedCpuLinear(8, 33, bias=False)
        with pytest.raises(ValueError, match=r"\(0, 32\)"):
            QuantizedCpuLinear(0, 32, bias=False)
        with pytest.raises(ValueError, match="not to 'Q4_K'"):
            QuantizedCpuLinear(8, 256, bias=False, kind="Q4_K")
        with pytest.raises(ValueError, match="kind Q5_0, only Q4_0"):
            linear.load_blocks(blocks, "Q5_0", 0)
        with pytest.raises(ValueError, match="64 numbers as Q4_0 has 36 bytes, not 68"):
            linear.load_blocks(blocks, "Q4_0", 0)
        with pytest.raises(ValueError, match="64 numbers as Q6_K has 52.5 bytes, not 68"):
            linear.load_blocks(blocks, "Q6_K", 0)
        with pytest.raises(ValueError, match=r"\(40, 68\) torch.int8"):
            linear.load_blocks(blocks.view(torch.int8), "Q8_0", 0)
        with pytest.raises(IndexError, match="rows 1 and 39 more"):
            linear.load_blocks(blocks, "Q8_0", 1)
        linear.load_blocks(blocks[:20], "Q8_0", 10)
        with pytest.raises(ValueError, match="rows 0 to 39 overlap rows 10 to 29"):
            linear.load_blocks(blocks, "Q8_0", 0)
        with pytest.raises(ValueError, match="overlap"):
            linear.load_blocks(blocks[:5], "Q8_0", 29)
        with pytest.raises(ValueError, match=r"\(2, 3\)"):
            linear.load_rows(torch.zeros(2, 3), 0)
        with pytest.raises(ValueError, match="a weight of -inf"):
            linear.load_rows(torch.full((1, 64), -float("inf")), 0)
        with pytest.raises(ValueError, match="without a bias"):
            linear.load_bias(torch.zeros(8), 0)
        with pytest.raises(ValueError, match=r"\(2, 5\)"):
            linear(torch.zeros(2, 5), torch.zeros(2, 40))
        with pytest.raises(ValueError, match="3 rows where 2"):
            linear(torch.zeros(2, 64), torch.zeros(3, 40))
        with pytest.raises(ValueError, match="row 40 is not within 0 to 39"):
            linear.embed(torch.tensor([40]), 1.0, torch.zeros(1, 64))
