"""Products with 8-bit weights: how they are loaded, and which products have them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from flipfast.engine.ops.blocks import FP8_GROUPS, FP8_ROWS, Blocks
from flipfast.engine.ops.fp8 import Fp8Linear, quantising_bytes
from flipfast.engine.ops.torch_ops import TorchLinear
from flipfast.engine.ops.triton_ops import TritonOps
from flipfast_kernels.fp8 import linear_fp8_ref
from flipfast_kernels.fp8_rows import GROUP, Fp8Rows, quantize_rows_ref
from flipfast_kernels.norm import rms_norm
from tests.kernels.conftest import _one_chain_of_products  # noqa: F401  (a fixture)

HERE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
KINDS = {FP8_ROWS: None, FP8_GROUPS: GROUP}
N_IN = 200


def linear(kind: str, *, bias: bool = False) -> Fp8Linear:
    return Fp8Linear(24, N_IN, bias=bias, kind=kind, dtype=torch.bfloat16, device=HERE)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(HERE)


def product(made: Fp8Linear, x: Any) -> torch.Tensor:
    return made(x, torch.full((len(x), made.n_out), float("nan"), dtype=torch.bfloat16).to(HERE))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_floats_are_rounded(kind: str, dtype: torch.dtype) -> None:
    made = linear(kind, bias=True)
    weight, bias, x = random(24, N_IN, seed=1).to(dtype), random(24, seed=2), random(5, N_IN)
    made.load(weight[:8].cpu(), 0)
    made.load(weight[8:], 8)
    made.load_bias(bias, 0)
    group = KINDS[kind]
    rounded = [quantize_rows_ref(rows.float(), group) for rows in (x, weight)]
    expected = linear_fp8_ref(*rounded, bias.bfloat16())
    assert (product(made, x) - expected).abs().max() <= 8e-3 * expected.abs().max()
    # Far from the product of floats: 8 bits is what it multiplies.
    floats = x.double() @ weight.double().T + bias
    assert 5e-3 < (product(made, x) - floats).norm() / floats.norm() < 5e-2


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_its_kind_are_kept(kind: str) -> None:
    made, group = linear(kind), KINDS[kind]
    weight = quantize_rows_ref(random(24, N_IN, seed=1), group)
    weight = Fp8Rows(weight.numbers, weight.scales * 1.37)
    made.load(Blocks(kind, (24, N_IN), weight.numbers, weight.scales), 0)
    x = random(5, N_IN)
    expected = linear_fp8_ref(quantize_rows_ref(x, group), weight)
    assert (product(made, x) - expected).abs().max() <= 8e-3 * expected.abs().max()


def test_numbers_of_the_other_kind_are_rounded_again() -> None:
    made = linear(FP8_ROWS)
    weight = quantize_rows_ref(random(24, N_IN, seed=1), GROUP)
    weight = Fp8Rows(weight.numbers, weight.scales * torch.tensor([1.0, 1.7], device=HERE))
    made.load(Blocks(FP8_GROUPS, (24, N_IN), weight.numbers, weight.scales), 0)
    x = random(5, N_IN)
    wide = linear_fp8_ref(quantize_rows_ref(x, GROUP), weight)
    assert 1e-3 < (product(made, x) - wide).norm() / wide.norm() < 6e-2


def test_what_is_not_finite_is_not_loaded() -> None:
    weight = random(24, N_IN)
    weight[3, 5] = float("inf")
    with pytest.raises(ValueError, match="a weight of inf cannot be quantised"):
        linear(FP8_ROWS).load(weight, 0)
    with pytest.raises(ValueError, match="a weight of inf cannot be quantised"):
        linear(FP8_ROWS).load(torch.full((24, N_IN), 1e300, dtype=torch.float64, device=HERE), 0)
    with pytest.raises(ValueError, match="24 rows was made without a bias"):
        linear(FP8_ROWS).load_bias(random(24), 0)


@pytest.mark.parametrize("kind", KINDS)
def test_its_bytes(kind: str) -> None:
    made = linear(kind, bias=True)
    groups = 1 if kind == FP8_ROWS else 2
    assert made.nbytes == 24 * 208 + 4 * 24 * groups + 2 * 24
    rows = Fp8Rows.empty(24, N_IN, KINDS[kind], HERE)
    assert quantising_bytes(24, N_IN) >= 24 * 208 + rows.scales.nbytes


@pytest.mark.parametrize("kind", KINDS)
def test_operands_lie_in_the_rows_that_they_take_the_place_of(kind: str) -> None:
    """A norm that writes to them is one launch, and each row is read before it is written."""
    made, ops = linear(kind), TritonOps(HERE, torch.bfloat16, fp8="all")
    made.load(random(24, N_IN, seed=1), 0)
    x, residual, weight = random(5, N_IN), random(5, N_IN, seed=3), random(N_IN, seed=2)
    floats = rms_norm(x, weight, 1e-6, torch.empty_like(x), residual.clone())
    hidden = x.clone()
    operand = made.operand(hidden)
    assert isinstance(operand, Fp8Rows)
    found = ops.add_rms_norm(hidden, residual, weight, 1e-6, operand)
    assert torch.equal(product(made, found), product(made, floats))
    assert operand.numbers.data_ptr() == hidden.data_ptr()


def test_rows_without_room_for_operands() -> None:
    """Those of three numbers of 16 bits: the product rounds them by itself."""
    made = Fp8Linear(8, 3, bias=False, kind=FP8_ROWS, dtype=torch.bfloat16, device=HERE)
    x = torch.empty(5, 3, dtype=torch.bfloat16, device=HERE)
    assert made.operand(x) is x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
def test_gated_operands(kind: str, activation: str) -> None:
    made, ops = linear(kind), TritonOps(HERE, torch.bfloat16, fp8="all")
    made.load(random(24, N_IN, seed=1), 0)
    gate_up = random(5, 2 * N_IN)
    floats = ops.gated(gate_up, activation, torch.empty(5, N_IN, device=HERE))
    operand = made.operand(torch.empty(5, N_IN, dtype=torch.bfloat16, device=HERE))
    assert isinstance(operand, Fp8Rows)
    found = ops.gated(gate_up, activation, operand)
    assert torch.equal(product(made, found), product(made, floats))


@pytest.mark.parametrize(
    ("fp8", "kinds", "kind"),
    [
        ("all", ("", ""), FP8_ROWS),
        ("all", (FP8_GROUPS, FP8_GROUPS), FP8_GROUPS),
        ("all", (FP8_GROUPS, FP8_ROWS), FP8_ROWS),
        ("kept", (FP8_ROWS, FP8_ROWS), FP8_ROWS),
        ("kept", (FP8_GROUPS,), FP8_GROUPS),
        ("kept", (FP8_ROWS, ""), None),
        ("kept", ("Q8_0",), None),
        ("kept", (), None),
        ("", (FP8_ROWS,), None),
    ],
)
def test_which_products_have_8_bits(fp8: str, kinds: tuple[str, ...], kind: str | None) -> None:
    ops = TritonOps(HERE, torch.bfloat16, fp8=fp8)
    made = ops.linear(24, N_IN, bias=False, source_dtype=torch.bfloat16, kinds=kinds)
    if kind is None:
        assert isinstance(made, TorchLinear)
    else:
        assert isinstance(made, Fp8Linear)
        assert made._kind == kind
    head = ops.head(24, N_IN, source_dtype=torch.bfloat16, kinds=kinds)
    assert isinstance(head, TorchLinear)
    assert (ops.scratch_bytes(8, N_IN) > 0) == bool(fp8)
