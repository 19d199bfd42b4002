"""The operations in plain torch, against formulas in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from flipfast.engine.ops.base import RopeTable
from flipfast.engine.ops.torch_ops import TorchOps, plain_product

CPU = torch.device("cpu")
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02}


def invariant_product(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor
) -> torch.Tensor:
    for row, result in zip(x, out, strict=True):
        plain_product(row[None], weight, bias, result[None])
    return out


@pytest.fixture(params=["plain", "invariant"])
def ops(request: pytest.FixtureRequest, dtype: torch.dtype) -> TorchOps:
    if request.param == "plain":
        return TorchOps(CPU, dtype)
    return TorchOps(CPU, dtype, invariant_product)


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    value: torch.dtype = request.param
    return value


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator).to(dtype)


def poisoned(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.full(shape, float("nan"), dtype=dtype)


def close(result: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = TOLERANCE[result.dtype]
    torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)


def normed(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    x = x.double()
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()


def test_what_it_says_of_itself(ops: TorchOps, dtype: torch.dtype) -> None:
    assert ops.batch_invariant == (ops._product is not plain_product)
    assert (ops.device, ops.weight_dtype, ops.activation_dtype) == (CPU, dtype, dtype)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n", [0, 1, 7])
def test_linear(ops: TorchOps, dtype: torch.dtype, bias: bool, n: int) -> None:
    x, weight, offsets = random(n, 9, dtype=dtype), random(13, 9), random(13)
    linear = ops.linear(13, 9, bias=bias, source_dtype=torch.float32)
    assert (linear.n_out, linear.n_in) == (13, 9)
    linear.load_rows(weight[5:], 5)
    linear.load_rows(weight[:5].half(), 0)
    expected = x.double() @ torch.cat([weight[:5].half(), weight[5:]]).to(dtype).double().t()
    close(linear(x, poisoned(n, 13, dtype=dtype)), expected)  # a bias is 0 until it is set
    if bias:
        linear.load_bias(offsets[2:], 2)
        linear.load_bias(offsets[:2], 0)
        expected += offsets.to(dtype).double()
        out = poisoned(n, 13, dtype=dtype)
        assert linear(x, out) is out
        close(out, expected)
    else:
        with pytest.raises(ValueError, match="without a bias"):
            linear.load_bias(offsets, 0)


@pytest.mark.parametrize("scale", [1.0, 55.4256])
def test_embed(ops: TorchOps, dtype: torch.dtype, scale: float) -> None:
    table, ids = random(11, 6, dtype=dtype), torch.tensor([10, 0, 3, 3])
    out = ops.embed(ids, table, scale, poisoned(4, 6, dtype=dtype))
    assert torch.equal(out, table[ids] * torch.tensor(scale, dtype=dtype))


@pytest.mark.parametrize("width", [1, 2, 31, 64, 100])
def test_rms_norm(ops: TorchOps, dtype: torch.dtype, width: int) -> None:
    x, weight = random(5, width, dtype=dtype), random(width)
    expected = normed(x, weight, 1e-3)
    close(ops.rms_norm(x, weight, 1e-3, poisoned(5, width, dtype=dtype)), expected)
    assert ops.rms_norm(x, weight, 1e-3, x) is x
    close(x, expected)


def test_add_rms_norm(ops: TorchOps, dtype: torch.dtype) -> None:
    x, residual, weight = random(5, 8, dtype=dtype), random(5, 8, dtype=dtype, seed=1), random(8)
    total = x + residual
    assert ops.add_rms_norm(x, residual, weight, 1e-6, x) is x
    assert torch.equal(residual, total)
    close(x, normed(total, weight, 1e-6))


def test_add(ops: TorchOps, dtype: torch.dtype) -> None:
    x, residual = random(5, 8, dtype=dtype), random(5, 8, dtype=dtype, seed=1)
    total = x + residual
    assert ops.add(x, residual) is residual
    assert torch.equal(residual, total)


@pytest.mark.parametrize("norm", [None, "head", "full"])
@pytest.mark.parametrize("rotary", [None, 12, 8])
def test_norm_rope(ops: TorchOps, dtype: torch.dtype, norm: str | None, rotary: int | None) -> None:
    n, heads, head_dim = 5, 3, 12
    fused = random(n, 5, head_dim, dtype=dtype)
    rest = fused[:, 3:].clone()
    view = fused[:, :3]
    positions = torch.tensor([0, 4, 4, 1, 9])
    width = {None: None, "head": head_dim, "full": heads * head_dim}[norm]
    weight = None if width is None else random(width)
    expected = view.double()
    if weight is not None:
        flat = expected.reshape(n, -1, weight.numel())
        expected = normed(flat, weight, 1e-6).reshape(n, heads, head_dim)
    rope = None
    if rotary is not None:
        angles = torch.arange(10.0)[:, None] * random(rotary // 2)
        rope = RopeTable(angles.cos(), angles.sin())
        # As complex numbers: (first half) + i (second half), turned by the angle.
        half = rotary // 2
        turn = torch.polar(torch.ones(n, 1, half).double(), angles[positions, None].double())
        z = torch.complex(expected[..., :half], expected[..., half:rotary]) * turn
        expected = torch.cat([z.real, z.imag, expected[..., rotary:]], dim=-1)
    ops.norm_rope(view, positions, rope, weight, 1e-6)
    close(view, expected)
    assert torch.equal(fused[:, 3:], rest)


def test_gated(ops: TorchOps, dtype: torch.dtype) -> None:
    x = random(5, 14, dtype=dtype)
    gate, up = x.double().chunk(2, dim=-1)
    close(ops.gated(x, "silu", poisoned(5, 7, dtype=dtype)), gate * gate.sigmoid() * up)
    expected = functional.gelu(gate, approximate="tanh") * up
    close(ops.gated(x, "gelu_tanh", poisoned(5, 7, dtype=dtype)), expected)
    with pytest.raises(ValueError, match="'relu'"):
        ops.gated(x, "relu", torch.empty(5, 7, dtype=dtype))


def test_a_norm_of_ones_own(dtype: torch.dtype) -> None:
    calls = []

    def norm(
        x: torch.Tensor,
        weight: torch.Tensor,
        eps: float,
        out: torch.Tensor,
        residual: torch.Tensor | None,
    ) -> None:
        calls.append(tuple(x.shape))
        total = x if residual is None else residual.add_(x)
        out.copy_(normed(total, weight, eps))

    own, plain = TorchOps(CPU, dtype, norm=norm), TorchOps(CPU, dtype)
    results = []
    for ops in (own, plain):
        x, residual = random(5, 2, 6, dtype=dtype), random(5, 12, dtype=dtype, seed=1)
        ops.norm_rope(x, torch.arange(5), None, random(6), 1e-6)
        ops.norm_rope(x, torch.arange(5), None, random(12), 1e-6)
        flat = x.view(5, 12)
        first = ops.rms_norm(flat, random(12), 1e-6, torch.empty_like(flat))
        second = ops.add_rms_norm(flat, residual, random(12), 1e-6, torch.empty_like(flat))
        results.append((x, first, second, residual))
    assert calls == [(10, 6), (5, 12), (5, 12), (5, 12)]
    for left, right in zip(*results, strict=True):
        close(left, right.double())


@pytest.mark.parametrize(
    ("row", "best"),
    [
        ([1.0, 3.0, 3.0], 1),
        ([-torch.inf, -5.0, -torch.inf], 1),
        ([1.0, torch.nan, 9.0], -1),
        ([1.0, torch.inf, 0.0], -1),
        ([-torch.inf] * 3, -1),
    ],
)
def test_argmax(row: list[float], best: int) -> None:
    logits = torch.tensor([[0.0, 0.0, 1.0], row])
    assert TorchOps(CPU, torch.bfloat16).argmax(logits).tolist() == [2, best]


def test_log_prob() -> None:
    logits = random(4, 33) * 5
    logits[2, 7] = torch.nan
    logits[3, 7] = torch.inf
    targets = torch.tensor([0, 32, 5, 5])
    ops = TorchOps(CPU, torch.bfloat16)
    found = ops.log_prob(logits, ops.argmax(logits), targets)
    expected = logits[:2].double().softmax(-1).gather(-1, targets[:2, None])[:, 0].log()
    torch.testing.assert_close(found[:2].double(), expected, rtol=1e-5, atol=1e-6)
    assert found[2:].isnan().all()


@pytest.mark.parametrize("width", [7, 320, 40000])
def test_the_norms_of_invariant_ops_do_not_see_other_rows(width: int) -> None:
    ops = TorchOps(CPU, torch.float32, invariant_product)
    x, weight = random(67, width), random(width)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # torch's own mean then cuts a wide row in two, if it is alone
    try:
        together = ops.rms_norm(x, weight, 1e-6, torch.empty_like(x))
        for row in range(67):
            alone = ops.rms_norm(x[row : row + 1], weight, 1e-6, torch.empty(1, width))
            assert torch.equal(alone[0], together[row])
    finally:
        torch.set_num_threads(threads)
