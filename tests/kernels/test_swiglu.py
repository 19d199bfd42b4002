"""The gated activations against float64."""

import pytest
import torch

pytest.importorskip("triton")

from flipfast_kernels.swiglu import ACTIVATIONS, gated, gated_ref

# The interpreter rounds to bfloat16 towards zero.
DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def rows(n, dim, dtype, device):
    generator = torch.Generator().manual_seed(dim)
    return (4 * torch.randn(n, 2 * dim + 6, generator=generator)).to(device, dtype)[:, : 2 * dim]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "dim"), [(1, 1), (7, 33), (3, 64), (2, 1023), (3, 1025)])
def test_equals_the_reference(activation, n, dim, dtype, device):
    x = rows(n, dim, dtype, device)
    before = x.clone()
    wide = torch.full((n + 1, dim + 3), float("nan"), dtype=dtype, device=device)
    out = wide[:n, :dim]
    assert gated(x, activation, out) is out
    expected = gated_ref(x, activation)
    torch.testing.assert_close(out, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert torch.equal(x, before)
    assert wide[n].isnan().all()
    assert wide[:, dim:].isnan().all()
    assert torch.equal(gated(x, activation), out)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_large_numbers_stay_finite(activation, device):
    gate = torch.tensor([-3e4, -200.0, -90.0, -10.0, -0.0, 0.0, 10.0, 90.0, 3e4])
    x = torch.cat([gate, torch.ones(9)])[None].to(device)
    expected = gated_ref(x, activation)
    torch.testing.assert_close(gated(x, activation), expected, rtol=1e-5, atol=1e-7)


def test_rounded_to_the_dtype_of_out(device):
    x = rows(2, 40, torch.float32, device)
    out = torch.empty(2, 40, dtype=torch.float16, device=device)
    assert torch.equal(gated(x, "silu", out), gated(x, "silu").half())


@pytest.mark.slow
def test_a_row_has_the_same_bits_in_every_company(device):
    x = rows(257, 65, torch.float32, device)
    whole = gated(x, "silu")
    for i in (0, 100, 256):
        assert torch.equal(gated(x[i : i + 1], "silu"), whole[i : i + 1])


@pytest.mark.parametrize("shape", [(0, 8), (3, 0)])
def test_nothing_to_do(shape, device):
    assert gated(torch.empty(shape, device=device), "silu").shape == (shape[0], shape[1] // 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "relu"}, "'relu': use one of"),
        ({"gate_up": torch.ones(8)}, r"gate_up has shape \(8,\)"),
        ({"gate_up": torch.ones(2, 7)}, r"gate_up has shape \(2, 7\)"),
        ({"gate_up": torch.ones(2, 8).int()}, "gate_up is torch.int32"),
        ({"gate_up": torch.ones(8, 2).t()}, r"gate_up has strides \(1, 2\)"),
        ({"out": torch.ones(2, 5)}, r"out has shape \(2, 5\): expected \(2, 4\)"),
        ({"out": torch.ones(2, 4).long()}, "out is torch.int64"),
        ({"out": torch.ones(2, 4, device="meta")}, "out is on meta"),
    ],
)
def test_bad_arguments_are_named(change, message, device):
    given = {"gate_up": torch.ones(2, 8), "activation": "silu", "out": torch.ones(2, 4)} | change
    here = {k: v if isinstance(v, str) or v.is_meta else v.to(device) for k, v in given.items()}
    with pytest.raises(ValueError, match=message):
        gated(**here)
