"""The batch-invariant product against float64, and a row's bits in every company."""

import pytest
import torch

pytest.importorskip("triton")

from flipfast_kernels import gemm
from flipfast_kernels.gemm import LinearConfig, linear, linear_configs, linear_ref

# Float32 sums and one rounding at the end, which the interpreter does towards zero.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 6e-4, torch.bfloat16: 8e-3}


def operands(m, n, k, dtype, device, seed=0):
    """x and weight inside wider tensors of NaN, and a bias."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.full((m, k + 3), float("nan"), device=device, dtype=dtype)[:, 1 : k + 1]
    weight = torch.full((n, k + 8), float("nan"), device=device, dtype=dtype)[:, :k]
    for part in (x, weight):
        part.copy_(torch.randn(part.shape, generator=generator))
    return x, weight, torch.randn(n, generator=generator).to(device)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 8, 16), (7, 33, 31), (65, 100, 129), (31, 130, 64)])
def test_equals_the_reference(m, n, k, dtype, device):
    x, weight, bias = operands(m, n, k, dtype, device)
    out = torch.full((m, n + 5), float("nan"), dtype=dtype, device=device)
    assert linear(x, weight, bias, out[:, :n]).data_ptr() == out.data_ptr()
    expected = linear_ref(x.double(), weight, bias)
    error = (out[:, :n] - expected).abs().max() / expected.abs().max()
    assert error < TOLERANCE[dtype]
    assert out[:, n:].isnan().all()


def test_wide_results_of_narrow_operands(device):
    x, weight, _ = operands(5, 40, 96, torch.float16, device)
    out = torch.empty(5, 40, device=device)
    expected = linear_ref(x.double(), weight)
    assert (linear(x, weight, out=out) - expected).abs().max() < 2e-5
    assert torch.equal(linear(x, weight), out.half())


TILES = [
    LinearConfig(64, 32, 64, 8, 4, 8),
    LinearConfig(64, 128, 64, 8, 4, 4),
    LinearConfig(128, 256, 64, 8, 8, 3),
    LinearConfig(128, 64, 64, 2, 4, 3),
]
# Rows, outputs and inputs: of whole tiles, and of parts of tiles in every place.
EDGES = [(128, 256, 128), (129, 264, 72), (63, 40, 200), (200, 328, 8), (1, 8, 64)]


@pytest.mark.slow
@pytest.mark.parametrize(("m", "n", "k"), EDGES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_tiles_and_descriptors_leave_the_bits(m, n, k, dtype, device, monkeypatch):
    """All tiles with tensor descriptors against the plain kernel, within tensors of NaN."""
    generator = torch.Generator().manual_seed(m)
    x, weight = (
        torch.full((rows, k + 8), float("nan"), device=device, dtype=dtype)[:, :k]
        for rows in (m, n)
    )
    for part in (x, weight):
        part.copy_(torch.randn(part.shape, generator=generator))
    bias = torch.randn(n, generator=generator).to(device)
    found = []
    for config in TILES:
        out = torch.full((m + 1, n + 8), float("nan"), device=device, dtype=dtype)
        assert gemm.suit_tma(x, weight, out[:m, :n])
        found.append(linear(x, weight, bias, out[:m, :n], config))
        assert out[m:].isnan().all()
        assert out[:, n:].isnan().all()
    monkeypatch.setattr(gemm, "suit_tma", lambda *_: False)
    plain = linear(x, weight, bias, config=TILES[1])
    for each in found:
        assert torch.equal(each, plain)


@pytest.mark.parametrize("n_rows", [1, 64, 65, 256, 1000, 8192])
@pytest.mark.parametrize("n_out", [1024, 4096, 24576])
def test_the_choice_of_a_tile_reads_least(n_rows, n_out):
    few, many = linear_configs(n_out, 1024, torch.bfloat16, 90)
    found = gemm.pick_config(n_rows, n_out, (few, many), 132)
    assert found == (few if n_rows <= 64 or (n_rows, n_out) in FEW_SERVE else many)


FEW_SERVE = {(65, 1024), (256, 1024), (1000, 1024), (65, 4096), (256, 4096)}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_row_has_the_same_bits_in_every_company(dtype, device):
    x, weight, bias = operands(130, 70, 200, dtype, device)
    few, many = linear_configs(70, 200, dtype, 90)
    whole = linear(x, weight, bias, config=many)
    assert torch.equal(whole, linear(x, weight, bias, config=few))
    for rows in ([129], [64, 3], list(range(100, 40, -1))):
        assert torch.equal(linear(x[rows], weight, bias), whole[rows])


def test_no_rows(device):
    x, weight, _ = operands(3, 5, 16, torch.float32, device)
    assert linear(x[:0], weight).shape == (0, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(3)}, r"x has shape \(3,\)"),
        ({"x": torch.ones(2, 4, dtype=torch.int32)}, "x is torch.int32"),
        ({"x": torch.ones(4, 2).T}, r"x has strides \(1, 2\)"),
        ({"weight": torch.ones(3, 5)}, r"weight has shape \(3, 5\): expected \(3, 4\)"),
        ({"weight": torch.ones(3, 4).half()}, "weight is torch.float16, x torch.float32"),
        ({"bias": torch.ones(2)}, r"bias has shape \(2,\): expected \(3,\)"),
        ({"out": torch.ones(2, 4)}, r"out has shape \(2, 4\): expected \(2, 3\)"),
        ({"out": torch.ones(2, 3).half()}, "out is torch.float16"),
        ({"weight": torch.ones(3, 4, device="meta")}, "weight is on meta"),
    ],
)
def test_bad_arguments_are_named(change, message, device):
    given = {"x": torch.ones(2, 4), "weight": torch.ones(3, 4)} | change
    here = {k: v if v.is_meta else v.to(device) for k, v in given.items()}
    with pytest.raises(ValueError, match=message):
        linear(**here)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("n", "k"), [(1024, 1024), (1024, 3072), (4096, 2560), (6144, 1000)])
def test_bits_over_batch_sizes_on_the_device(n, k, dtype, device):
    x, weight, bias = operands(4097, n, k, dtype, device)
    x = x.contiguous()
    whole = linear(x, weight, bias)
    for m in (1, 2, 15, 16, 63, 64, 65, 128, 300, 1024, 2049):
        for first in (0, 4097 - m):
            rows = slice(first, first + m)
            assert torch.equal(linear(x[rows], weight, bias), whole[rows]), (m, first)
    expected = linear_ref(x.double(), weight, bias)
    torchs = torch.nn.functional.linear(x, weight, bias.to(dtype))
    assert (whole - expected).abs().max() <= 2 * (torchs - expected).abs().max()


@pytest.mark.gpu
def test_a_split_of_k_would_be_noticed(device):
    x, weight, _ = operands(64, 1024, 4096, torch.bfloat16, device)
    config = LinearConfig(64, 64, 64, 8, 4, 3)
    whole = linear(x, weight, out=torch.empty(64, 1024, device=device), config=config)
    halves = [
        linear(x[:, part], weight[:, part], out=torch.empty(64, 1024, device=device), config=config)
        for part in (slice(0, 2048), slice(2048, 4096))
    ]
    assert not torch.equal(halves[0] + halves[1], whole)
