"""The head's reduced product against its own logits, written out, and float64."""

import math

import pytest
import torch

pytest.importorskip("triton")

from flipfast_kernels.gemm import linear
from flipfast_kernels.lm_head import LmHead, head_configs, head_parts, lm_head, lm_head_ref

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SHAPES = [(1, 1, 16), (7, 33, 31), (65, 100, 129), (31, 257, 64)]
PRECISE = {"rtol": 2e-6, "atol": 0}


def operands(m, vocab, k, dtype, device, scale=0.5):
    """x and weight inside wider tensors of NaN, and targets."""
    generator = torch.Generator().manual_seed(m + vocab)
    x = torch.full((m, k + 3), float("nan"), device=device, dtype=dtype)[:, 1 : k + 1]
    weight = torch.full((vocab, k + 8), float("nan"), device=device, dtype=dtype)[:, :k]
    for part in (x, weight):
        part.copy_(torch.randn(part.shape, generator=generator) * scale)
    return x, weight, torch.randint(vocab, (m,), generator=generator).to(device)


def written_out(x, weight):
    return linear(x, weight, out=torch.empty(len(x), len(weight), device=x.device))


def poisoned(m, device):
    floats = (torch.full((m,), float("nan"), device=device) for _ in range(3))
    return LmHead(torch.full((m,), -7, device=device), *floats)


def assert_same(a, b):
    for name in ("best", "best_logit", "logsumexp", "target_logprob"):
        ours, theirs = getattr(a, name), getattr(b, name)
        assert (ours is None) == (theirs is None), name
        if ours is not None:
            assert torch.equal(ours.nan_to_num(9.0), theirs.nan_to_num(9.0)), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "vocab", "k"), SHAPES)
def test_equals_the_logits_written_out(m, vocab, k, dtype, device):
    x, weight, targets = operands(m, vocab, k, dtype, device)
    logits = written_out(x, weight)
    parts = torch.full((head_parts(m, weight, True),), float("nan"), device=device)
    found = lm_head(x, weight, targets, out=poisoned(m, device), parts=parts)
    assert torch.equal(found.best, logits.argmax(1))
    assert torch.equal(found.best_logit, logits.amax(1))
    wide = logits.double()
    torch.testing.assert_close(found.logsumexp.double(), wide.logsumexp(1), **PRECISE)
    expected = wide.log_softmax(1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(found.target_logprob.double(), expected, **PRECISE)


def test_what_is_not_asked_for_is_not_there(device):
    x, weight, targets = operands(5, 70, 20, torch.float32, device)
    whole = lm_head(x, weight, targets.int())
    best = lm_head(x, weight)
    assert_same(best, LmHead(whole.best, whole.best_logit))
    sums = lm_head(x, weight, statistics=True)
    assert_same(sums, LmHead(whole.best, whole.best_logit, whole.logsumexp))


@pytest.mark.parametrize("softcap", [None, 1.5, 30.0])
def test_equals_the_reference(softcap, device):
    x, weight, targets = operands(9, 150, 40, torch.float32, device)
    found = lm_head(x, weight, targets, softcap=softcap)
    expected = lm_head_ref(x, weight, targets, softcap=softcap)
    assert torch.equal(found.best, expected.best)
    for name in ("best_logit", "logsumexp", "target_logprob"):
        close = {"rtol": 4e-6, "atol": 1e-6}
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), **close)


def test_probabilities_near_one_keep_their_precision(device):
    """Their logarithm is far below what float32 tells apart at the size of the logits."""
    weight = torch.zeros(130, 1, device=device)
    weight[77], weight[3], weight[129] = 20.0, 1.0, 1.5
    found = lm_head(torch.ones(1, 1, device=device), weight, torch.tensor([77], device=device))
    expected = weight[:, 0].double().log_softmax(0)[77]
    assert abs(expected) < 3e-7
    torch.testing.assert_close(found.target_logprob[0].double(), expected, **PRECISE)


@pytest.mark.parametrize("places", [[5, 9], [63, 64], [0, 199], [70, 140, 150], list(range(200))])
def test_the_first_of_equals_is_the_best(places, device):
    weight = torch.full((200, 1), -1.0, device=device)
    weight[places] = 2.0
    found = lm_head(torch.ones(3, 1, device=device), weight, statistics=True)
    assert found.best.tolist() == [places[0]] * 3
    expected = weight[:, 0].double().logsumexp(0).float().expand(3)
    torch.testing.assert_close(found.logsumexp, expected, **PRECISE)


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 64, 149])
def test_a_row_that_is_not_finite_has_no_best(bad, place, softcap, device):
    weight = torch.zeros(150, 3, device=device)
    weight[:, 0] = torch.linspace(-1, 1, 150)
    weight[place, 1:] = 3e38
    x = torch.zeros(3, 3, device=device)
    x[:, 0] = 1.0
    x[1, 1:] = torch.tensor([3e38, -3e38 if math.isnan(bad) else 0.0])
    assert str(written_out(x, weight)[1, place].item()) == str(bad)
    targets = torch.zeros(3, dtype=torch.int64, device=device)
    found = lm_head(x, weight, targets, softcap=softcap)
    alone = lm_head(x[:1], weight, targets[:1], softcap=softcap)
    assert found.best[1] == -1
    for name in ("best_logit", "logsumexp", "target_logprob"):
        values = getattr(found, name)
        assert values.isnan().tolist() == [False, True, False]
        assert torch.equal(values[[0, 2]], getattr(alone, name).expand(2))


def test_logits_of_minus_infinity_have_probability_zero(device):
    weight = torch.full((200, 1), -3e38, device=device)  # all of the second tile, too
    weight[130:135, 0] = torch.tensor([1e-38, 2e-38, 0.0, 1e-38, -1e-38])
    x = torch.full((2, 1), 3e38, device=device)
    found = lm_head(x, weight, torch.tensor([0, 132], device=device))
    logits = (x @ weight.T).double()
    assert found.best.tolist() == [131, 131]
    torch.testing.assert_close(found.logsumexp.double(), logits.logsumexp(1), **PRECISE)
    assert found.target_logprob[0] == -float("inf")
    assert found.target_logprob[1] == pytest.approx(logits.log_softmax(1)[1, 132].item(), rel=2e-6)
    none = lm_head(x, weight[:130], statistics=True)
    assert none.best.tolist() == [-1, -1]
    assert none.logsumexp.isnan().all()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_bits_in_every_company(dtype, device):
    x, weight, targets = operands(130, 100, 40, dtype, device)
    few, many = head_configs(100, dtype, 90)
    whole = lm_head(x, weight, targets, config=many)
    assert_same(lm_head(x, weight, targets, config=few), whole)
    for rows in ([129], [64, 3], list(range(100, 40, -1))):
        part = lm_head(x[rows], weight, targets[rows])
        assert_same(part, LmHead(*(getattr(whole, name)[rows] for name in vars(whole))))


def test_no_rows(device):
    x, weight, targets = operands(3, 5, 16, torch.float32, device)
    found = lm_head(x[:0], weight, targets[:0])
    assert [len(values) for values in vars(found).values()] == [0, 0, 0, 0]


def test_a_target_that_is_no_token(device):
    x, weight, _ = operands(3, 100, 16, torch.float32, device)
    for bad in (-1, 100, 2**31):
        targets = torch.tensor([4, bad, 4], device=device)
        with pytest.raises(ValueError, match=rf"targets has {bad} at 1: it must lie in \[0, 100\)"):
            lm_head(x, weight, targets)
        found = lm_head(x, weight, targets, validate=False)
        assert found.target_logprob.isnan().tolist() == [False, True, False]
        assert found.logsumexp.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(3)}, r"x has shape \(3,\)"),
        ({"x": torch.ones(2, 4, dtype=torch.int32)}, "x is torch.int32"),
        ({"x": torch.ones(4, 2).T}, r"x has strides \(1, 2\)"),
        ({"weight": torch.ones(3, 5)}, r"weight has shape \(3, 5\): expected \(3, 4\)"),
        ({"weight": torch.ones(0, 4)}, "weight has 0 rows"),
        ({"weight": torch.ones(1).expand(1 << 23, 4)}, "weight has strides"),
        ({"weight": torch.ones(1, 4).expand(1 << 23, 4)}, "weight has 8388608 rows"),
        ({"weight": torch.ones(3, 4).half()}, "weight is torch.float16, x torch.float32"),
        ({"weight": torch.ones(3, 4, device="meta")}, "weight is on meta"),
        ({"targets": torch.ones(2)}, "targets is torch.float32"),
        ({"targets": torch.ones(3).long()}, r"targets has shape \(3,\): expected \(2,\)"),
        ({"targets": torch.ones(4).long()[::2]}, r"targets has strides \(2,\)"),
        ({"softcap": 0.0}, "softcap is 0.0"),
        ({"softcap": float("nan")}, "softcap is nan"),
        ({"parts": torch.ones(3)}, "parts has 3 numbers: 4 are needed"),
        ({"parts": torch.ones(9).double()}, "parts is torch.float64"),
        ({"out": LmHead(torch.ones(2).long(), torch.ones(3))}, r"out.best_logit has shape \(3,\)"),
        ({"out": LmHead(torch.ones(2), torch.ones(2))}, "out.best is torch.float32"),
        ({"out": poisoned(2, "cpu")}, "out.logsumexp is given in vain"),
        (
            {"out": LmHead(torch.ones(2).long(), torch.ones(2)), "statistics": True},
            "out.logsumexp is missing",
        ),
    ],
)
def test_bad_arguments_are_named(change, message, device):
    given = {"x": torch.ones(2, 4), "weight": torch.ones(3, 4)} | change
    for name, value in given.items():
        if isinstance(value, torch.Tensor) and value.device.type == "cpu" and value.numel() < 99:
            given[name] = value.to(device) if value.is_contiguous() else value
    with pytest.raises(ValueError, match=message):
        lm_head(**given)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("vocab", "k"), [(151936, 1024), (32003, 1000), (1024, 256)])
def test_bits_over_batch_sizes_on_the_device(vocab, k, dtype, device):
    x, weight, targets = operands(600, vocab, k, dtype, device, scale=0.2)
    x = x.contiguous()
    whole = lm_head(x, weight, targets)
    logits = written_out(x, weight)
    assert torch.equal(whole.best, logits.argmax(1))
    assert torch.equal(whole.best_logit, logits.amax(1))
    wide = logits.double()
    torch.testing.assert_close(whole.logsumexp.double(), wide.logsumexp(1), **PRECISE)
    expected = wide.log_softmax(1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(whole.target_logprob.double(), expected, **PRECISE)
    for m in (1, 2, 15, 63, 64, 65, 128, 300):
        for first in (0, 600 - m):
            rows = slice(first, first + m)
            part = lm_head(x[rows], weight, targets[rows])
            assert_same(part, LmHead(*(getattr(whole, name)[rows] for name in vars(whole))))
