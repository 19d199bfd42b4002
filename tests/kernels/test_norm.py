"""The norm kernel against float64, in place, with a residual, and row by row."""

import pytest
import torch

pytest.importorskip("triton")

from flipfast_kernels.norm import rms_norm, rms_norm_ref

EPS = 1e-6
# The interpreter rounds to bfloat16 towards zero.
DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def rows(n, dim, dtype, device):
    generator = torch.Generator().manual_seed(dim)
    x, residual = torch.randn(2, n, dim + 4, generator=generator).to(device, dtype)[..., :dim]
    return x, residual, (1 + torch.randn(dim, generator=generator) / 8).to(device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "dim"), [(1, 1), (7, 33), (3, 64), (2, 1023)])
def test_equals_the_reference(n, dim, dtype, device):
    x, residual, weight = rows(n, dim, dtype, device)
    before = x.clone()
    out = torch.full((n, dim), float("nan"), dtype=dtype, device=device)
    assert rms_norm(x, weight, EPS, out) is out
    torch.testing.assert_close(
        out, rms_norm_ref(x, weight, EPS), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
    )
    total, same = residual + x, residual.clone()
    with_residual = rms_norm(x, weight, EPS, residual=residual)
    assert torch.equal(with_residual, rms_norm(total, weight, EPS))
    assert torch.equal(x, before)
    assert torch.equal(residual, total)
    expected = rms_norm_ref(x, weight, EPS, residual=same)
    assert torch.equal(same, total)
    assert torch.equal(expected, rms_norm_ref(total, weight, EPS))
    torch.testing.assert_close(
        with_residual, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
    )


def test_a_row_has_the_same_bits_in_every_company_and_in_place(device):
    x, residual, weight = rows(9, 200, torch.float32, device)
    whole = rms_norm(x, weight, EPS, residual=residual.clone())
    one = rms_norm(x[4:5], weight, EPS, residual=residual[4:5].clone())
    assert torch.equal(one, whole[4:5])
    rms_norm(x, weight, EPS, out=x, residual=residual)
    assert torch.equal(x, whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(3)}, r"x has shape \(3,\)"),
        ({"x": torch.ones(2, 0)}, r"x has shape \(2, 0\)"),
        ({"weight": torch.ones(5)}, r"weight has shape \(5,\): expected \(4,\)"),
        ({"weight": torch.ones(4).half()}, "weight is torch.float16"),
        ({"out": torch.ones(2, 4).long()}, "out is torch.int64"),
        ({"residual": torch.ones(3, 4)}, r"residual has shape \(3, 4\)"),
        ({"residual": torch.ones(2, 4, device="meta")}, "residual is on meta"),
    ],
)
def test_bad_arguments_are_named(change, message, device):
    given = {"x": torch.ones(2, 4), "weight": torch.ones(4)} | change
    here = {k: v if v.is_meta else v.to(device) for k, v in given.items()}
    with pytest.raises(ValueError, match=message):
        rms_norm(**here, eps=EPS)
