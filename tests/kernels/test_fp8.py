"""Rows rounded to 8-bit floats, bit for bit, and their products against float64."""

import pytest
import torch

pytest.importorskip("triton")

from flipfast_kernels import fp8
from flipfast_kernels.fp8 import linear_fp8, linear_fp8_configs, linear_fp8_ref
from flipfast_kernels.fp8_rows import (
    FP8,
    GROUP,
    Fp8Rows,
    n_groups,
    quantize_rows,
    quantize_rows_ref,
)
from flipfast_kernels.gemm import LinearConfig, linear_configs
from flipfast_kernels.norm import rms_norm
from flipfast_kernels.swiglu import gated

GROUPS = (None, GROUP)
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def numbers(*shape, device, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(shape, generator=generator)
    # Rows of very different sizes, so that a wrong row's scale is not nearly right.
    return (rows * torch.logspace(-2, 2, shape[0])[:, None]).to(device, dtype)


def as_weight(rows):
    """Scales of a group side by side, and no powers of two."""
    return Fp8Rows(rows.numbers, (rows.scales * 1.7).T.contiguous().T)


def operands(m, n, k, group, device):
    x = quantize_rows(numbers(m, k, device=device), group)
    weight = quantize_rows(numbers(n, k, device=device, seed=1) / 30, group)
    return x, as_weight(weight)


def equal(found, expected):
    bits = [x.numbers.contiguous().view(torch.uint8) for x in (found, expected)]
    return torch.equal(found.scales, expected.scales) and torch.equal(*bits)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 40, 128, 130, 700])
def test_rows_are_rounded_as_torch_rounds(k, dtype, group, device):
    x = torch.full((7, k + 3), float("nan"), dtype=dtype, device=device)[:, 1 : k + 1]
    x.copy_(numbers(7, k, device=device))
    found = quantize_rows(x, group)
    assert found.numbers.stride(0) % 16 == 0
    assert equal(found, quantize_rows_ref(x, group))
    # The error of a number is at most half a step: 2**-4 of it, or 2**-10 of its scale.
    error = (found.widened() - x.float()).abs()
    each = found.scales.repeat_interleave(GROUP, 1)[:, :k] if group else found.scales
    assert (error <= torch.maximum(x.float().abs() / 16, each / 1024)).all()


EDGES = [0.0, 448.0, 449.0, 2**-9, 2**-10, 3 * 2**-10, 17.0, 19.0, 1e-30, 1e-41, 3e38, 1.0, 31.1]


@pytest.mark.parametrize("largest", EDGES)
def test_scales_are_the_least_powers_of_two(largest, device):
    x = torch.tensor([EDGES]).clamp(max=largest).to(device)
    found = quantize_rows(x)
    assert equal(found, quantize_rows_ref(x))
    mantissa, _ = torch.frexp(found.scales)
    assert (mantissa == 0.5).all()
    assert found.numbers.float().max() <= 448
    if largest > 1e-35:
        assert found.numbers.float().max() >= 224


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("group", GROUPS)
def test_a_row_that_is_not_finite_gives_nan_and_leaves_the_others(bad, group, device):
    x = numbers(3, 200, device=device)
    whole = quantize_rows(x, group)
    x[1, 150] = bad
    found = quantize_rows(x, group)
    assert found.widened()[1].isnan().any()
    for at in (0, 2):
        assert torch.equal(found.widened()[at], whole.widened()[at])


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_may_take_the_place_of_others(dtype, group, device):
    x = numbers(5, 300, device=device, dtype=dtype)
    expected = quantize_rows_ref(x, group)
    found = Fp8Rows.within(x, group)
    assert found.numbers.data_ptr() == x.data_ptr()
    assert quantize_rows(x, out=found) is found
    assert equal(found, expected)


@pytest.mark.parametrize("group", GROUPS)
def test_nothing_is_written_beside_the_rows(group, device):
    """300 numbers are three groups, and a kernel's block has four."""
    gate_up, n = numbers(3, 600, device=device), 300
    n_scales = n_groups(n, group)
    for write in (
        lambda out: quantize_rows(gate_up[:, :n], out=out),
        lambda out: rms_norm(gate_up[:, :n], gate_up[0, :n], 1e-6, out),
        lambda out: gated(gate_up, "silu", out),
    ):
        around = torch.zeros(3, n + 5, device=device).to(FP8)
        scales = torch.full((3, n_scales + 2), -7.0, device=device)
        write(Fp8Rows(around[:, :n], scales[:, :n_scales]))
        assert (around[:, n:].float() == 0).all()
        assert (scales[:, n_scales:] == -7).all()
        assert (scales[:, :n_scales] > 0).all()


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("n", [40, 1100, 2300])
def test_activations_and_norms_round_what_they_would_write(n, group, device):
    gate_up = numbers(3, 2 * n, device=device, dtype=torch.bfloat16)
    for activation in ("silu", "gelu_tanh"):
        floats = gated(gate_up, activation, torch.empty(3, n, device=device))
        found = gated(gate_up, activation, Fp8Rows.empty(3, n, group, device))
        assert equal(found, quantize_rows_ref(floats, group))
    x, weight = gate_up[:, :n], torch.linspace(-1, 2, n, device=device)
    for residual in (None, gate_up[:, n:].clone()):
        both = [None if residual is None else residual.clone() for _ in range(2)]
        floats = rms_norm(x, weight, 1e-6, torch.empty(3, n, device=device), both[0])
        found = rms_norm(x, weight, 1e-6, Fp8Rows.empty(3, n, group, device), both[1])
        assert equal(found, quantize_rows_ref(floats, group))
        assert residual is None or torch.equal(*both)


@pytest.mark.parametrize(
    "x",
    [
        torch.empty(4, 3, dtype=torch.bfloat16),  # three bytes and four of a scale
        torch.empty(4, 9, dtype=torch.bfloat16),  # rows at odd places
        torch.empty(4, 10, dtype=torch.bfloat16)[:, 1:9],
    ],
)
def test_rows_that_have_no_room_for_others(x):
    assert Fp8Rows.within(x, None) is None


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 8, 16), (7, 33, 31), (65, 100, 300), (31, 130, 256)])
def test_equals_the_reference(m, n, k, dtype, group, device):
    given = operands(m, n, k, group, device)
    bias = torch.randn(n, generator=torch.Generator().manual_seed(2)).to(device)
    out = torch.full((m, n + 5), float("nan"), dtype=dtype, device=device)
    assert linear_fp8(*given, bias, out[:, :n]).data_ptr() == out.data_ptr()
    expected = linear_fp8_ref(*given, bias)
    error = (out[:, :n].double() - expected).abs().amax(1) / expected.abs().amax(1)
    # On a device sums have about 14 bits.
    most = {torch.bfloat16: 8e-3, torch.float16: 1e-3, torch.float32: 2e-6}[dtype]
    assert error.max() < (most if device.type == "cpu" else max(most, 2e-3))
    assert out[:, n:].isnan().all()


TILES = [
    LinearConfig(*tile, GROUP, 8, 4, 3) for tile in ((64, 32), (64, 128), (128, 256), (128, 64))
]


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize(
    ("m", "n", "k"), [(128, 256, 256), (129, 264, 144), (63, 40, 400), (1, 8, 64)]
)
def test_tiles_and_descriptors_leave_the_bits(m, n, k, group, device, monkeypatch):
    given = operands(m, n, k, group, device)
    bias = torch.randn(n, generator=torch.Generator().manual_seed(3)).to(device)
    found = []
    for config in TILES:
        out = torch.full((m + 1, n + 8), float("nan"), device=device, dtype=torch.bfloat16)
        assert fp8.suit_tma(*(rows.numbers for rows in given), out[:m, :n])
        found.append(linear_fp8(*given, bias, out[:m, :n], config))
        assert out[m:].isnan().all()
        assert out[:, n:].isnan().all()
    monkeypatch.setattr(fp8, "suit_tma", lambda *_: False)
    plain = linear_fp8(*given, bias, config=TILES[1])
    assert all(torch.equal(each, plain) for each in found)


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_a_row_has_the_same_bits_in_every_company(group, device):
    x, weight = numbers(130, 400, device=device), numbers(70, 400, device=device, seed=1)
    weight = as_weight(quantize_rows(weight, group))
    pair = linear_fp8_configs(90) if group else linear_configs(70, 400, FP8, 90)

    def product(rows, config=None):
        return linear_fp8(quantize_rows(rows, group), weight, config=config)

    whole = product(x, pair[1])
    assert torch.equal(whole, product(x, pair[0]))
    for rows in ([129], [64, 3], list(range(100, 40, -1))):
        assert torch.equal(product(x[rows]), whole[rows])


@pytest.mark.parametrize("capability", [89, 90, 100, 120])
def test_both_tiles_have_one_depth(capability):
    for few, many in (linear_fp8_configs(capability), linear_configs(64, 64, FP8, capability)):
        assert few.block_k == many.block_k == GROUP


def test_no_rows(device):
    x = quantize_rows(torch.empty(0, 32, device=device))
    weight = quantize_rows(numbers(5, 32, device=device))
    assert linear_fp8(x, weight).shape == (0, 5)


def made(n_rows, n_groups=1, n_in=300, dtype=FP8):
    return Fp8Rows(torch.ones(n_rows, n_in).to(dtype), torch.ones(n_groups, n_rows).T)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": made(2, dtype=torch.float32)}, "x has torch.float32: pass torch.float8_e4m3fn"),
        ({"weight": made(3, n_in=5)}, r"weight has shape \(3, 5\): expected \(3, 300\)"),
        ({"x": made(2, 2)}, r"x has shape \(2, 300\) and scales of shape \(2, 2\)"),
        ({"weight": made(3, 3)}, "x has 1 scales a row, weight 3"),
        ({"x": made(2, 3), "weight": made(3, 3)}, r"x has scales with strides \(1, 2\)"),
        (
            {"weight": Fp8Rows(made(3).numbers, torch.ones(3, 2)[:, :1])},
            r"weight has scales with strides \(2, 1\)",
        ),
        (
            {"weight": Fp8Rows(made(3).numbers, made(3).scales.half())},
            "weight has scales of torch.float16",
        ),
        ({"bias": torch.ones(2)}, r"bias has shape \(2,\): expected \(3,\)"),
        ({"out": torch.ones(2, 4)}, r"out has shape \(2, 4\): expected \(2, 3\)"),
        ({"out": torch.ones(2, 3).int()}, "out is torch.int32"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        linear_fp8(**({"x": made(2), "weight": made(3)} | change))


def test_bad_rows_are_named(device):
    x, few = torch.ones(2, 256, device=device), Fp8Rows.empty(3, 256, None, device)
    for call in (
        lambda: quantize_rows(x, out=few),
        lambda: rms_norm(x, x[0], 1e-6, few),
        lambda: gated(torch.ones(2, 512, device=device), "silu", few),
    ):
        with pytest.raises(ValueError, match=r"out has shape \(3, 256\): expected \(2, 256\)"):
            call()
    across = Fp8Rows(Fp8Rows.empty(2, 256, None, device).numbers, torch.ones(2, 2, device=device).T)
    for call in (
        lambda: quantize_rows(x, out=across),
        lambda: rms_norm(x, x[0], 1e-6, across),
        lambda: gated(torch.ones(2, 512, device=device), "silu", across),
    ):
        with pytest.raises(ValueError, match=r"out has scales with strides \(1, 2\): the last one"):
            call()
    with pytest.raises(ValueError, match="group is 64: pass 128 or None"):
        quantize_rows(torch.ones(2, 256, device=device), 64)
    with pytest.raises(ValueError, match="x is torch.int32"):
        quantize_rows(torch.ones(2, 256, device=device).int())


def test_groups_need_tiles_of_their_depth(device):
    given = operands(2, 8, 300, GROUP, device)
    with pytest.raises(ValueError, match="block_k is 64"):
        linear_fp8(*given, config=LinearConfig(64, 32, 64, 8, 4, 3))


@pytest.mark.gpu
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize(("n", "k"), [(1024, 1024), (4096, 2560), (6144, 1008)])
def test_bits_over_batch_sizes_on_the_device(n, k, group, device):
    x = numbers(4097, k, device=device, dtype=torch.bfloat16)
    weight = as_weight(quantize_rows(numbers(n, k, device=device, seed=1), group))
    given = quantize_rows(x, group)
    whole = linear_fp8(given, weight)
    for m in (1, 2, 15, 16, 63, 64, 65, 128, 300, 1024, 2049):
        for first in (0, 4097 - m):
            rows = slice(first, first + m)
            few = linear_fp8(quantize_rows(x[rows], group), weight)
            assert torch.equal(few, whole[rows]), (m, first)
    expected = linear_fp8_ref(given, weight)
    error = (whole.double() - expected).abs().amax(1) / expected.abs().amax(1)
    assert error.max() < 8e-3
