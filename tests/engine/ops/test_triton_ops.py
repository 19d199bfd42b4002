"""The operations from the Triton kernels against plain torch, and transformers' own layers."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from transformers import Qwen3Config
from transformers.models.qwen3 import modeling_qwen3

from flipfast.engine.attention.base import AttentionShape, LayerCache
from flipfast.engine.attention.reference import Backend
from flipfast.engine.ops.base import Ops, RopeTable
from flipfast.engine.ops.torch_ops import TorchOps, plain_product
from flipfast.engine.ops.triton_ops import TritonOps
from flipfast_kernels import gemm, norm, swiglu
from tests.kernels.conftest import _one_chain_of_products  # noqa: F401  (a fixture)

HERE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EPS = 1e-6
OURS = TritonOps(HERE, torch.float32)
PLAIN = TorchOps(HERE, torch.float32)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator).to(HERE)


def poisoned(*shape: int) -> torch.Tensor:
    return torch.full(shape, float("nan"), device=HERE)


def close(result: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_what_it_says_of_itself() -> None:
    assert OURS.batch_invariant
    assert not TritonOps(HERE, torch.bfloat16, plain_product).batch_invariant
    assert (OURS.device, OURS.activation_dtype) == (HERE, torch.float32)


@pytest.mark.parametrize("ops", [OURS, TritonOps(HERE, torch.float32, plain_product)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(ops: TritonOps, bias: bool) -> None:
    results = []
    for each in (ops, PLAIN):
        linear = each.linear(13, 9, bias=bias, source_dtype=torch.float32)
        linear.load_rows(random(13, 9), 0)
        if bias:
            linear.load_bias(random(13), 0)
        results.append(linear(random(7, 9), poisoned(7, 13)))
    close(*results)


def test_norms() -> None:
    x, residual, weight = random(5, 40), random(5, 40, seed=1), random(40)
    close(
        OURS.rms_norm(x, weight, EPS, poisoned(5, 40)),
        PLAIN.rms_norm(x, weight, EPS, poisoned(5, 40)),
    )
    sums = residual.clone(), residual.clone()
    close(
        OURS.add_rms_norm(x, sums[0], weight, EPS, x.clone()),
        PLAIN.add_rms_norm(x, sums[1], weight, EPS, x.clone()),
    )
    assert torch.equal(*sums)


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
def test_gated(activation: str) -> None:
    x = random(5, 2 * 33)
    out = poisoned(5, 33)
    assert OURS.gated(x, activation, out) is out
    close(out, PLAIN.gated(x, activation, poisoned(5, 33)))
    with pytest.raises(ValueError, match="'relu'"):
        OURS.gated(x, "relu", out)


def rope_table(rotary_dim: int) -> RopeTable:
    angles = torch.arange(10.0, device=HERE)[:, None] * random(rotary_dim // 2)
    return RopeTable(angles.cos(), angles.sin())


class OwnPages:
    """A store in a layout of its own, which keeps what it is given."""

    plain_pages = False

    def write(
        self, key: torch.Tensor, value: torch.Tensor, cache: LayerCache, slots: torch.Tensor
    ) -> None:
        cache[0][slots], cache[1][slots] = key, value


class NeverWrites(Backend):
    """A store of plain pages that is not to be asked to write."""

    def write(self, *arguments: object) -> None:
        raise AssertionError("the pages are plain: they could have been written in the same pass")


@pytest.mark.parametrize("norm", [None, "head", "full"])
@pytest.mark.parametrize("rotary", [None, 16, 6])
def test_norm_rope_write(norm: str | None, rotary: int | None) -> None:
    n, heads, kv_heads, head_dim = 5, 3, 2, 16
    rope = None if rotary is None else rope_table(rotary)
    sizes = {None: None, "head": (head_dim,) * 2, "full": (heads * head_dim, kv_heads * head_dim)}
    size = sizes[norm]
    weights = (None, None) if size is None else (random(size[0]), random(size[1], seed=1))
    positions = torch.tensor([0, 4, 4, 1, 9], device=HERE)
    slots = torch.tensor([17, 16, 40, 0, 0], device=HERE)  # the last two are padding
    shape = AttentionShape(heads, kv_heads, head_dim, torch.float32, HERE)

    def run(ops: Ops, store: Backend | OwnPages, cache: LayerCache) -> torch.Tensor:
        fused = random(n, heads + 2 * kv_heads, head_dim)
        query, key, value = fused.split((heads, kv_heads, kv_heads), dim=1)
        ops.norm_rope_write(query, key, value, positions, rope, *weights, EPS, store, cache, slots)
        return query

    plain_cache, cache = Backend(shape).allocate(4), NeverWrites(shape).allocate(4)
    own_cache = (
        torch.zeros(64, kv_heads, head_dim, device=HERE),
        torch.zeros(64, kv_heads, head_dim, device=HERE),
    )
    expected = run(PLAIN, Backend(shape), plain_cache)
    close(run(OURS, NeverWrites(shape), cache), expected)
    close(run(OURS, OwnPages(), own_cache), expected)
    for ours, own, theirs in zip(cache, own_cache, plain_cache, strict=True):
        close(ours[1:], theirs[1:])
        close(own.view_as(theirs)[1:], theirs[1:])
    assert plain_cache[0][1:].count_nonzero() == 3 * kv_heads * head_dim


def test_norm_and_rotation_are_those_of_transformers() -> None:
    n, heads, head_dim = 7, 3, 32
    config = Qwen3Config(hidden_size=64, num_attention_heads=heads, head_dim=head_dim)
    rotary = modeling_qwen3.Qwen3RotaryEmbedding(config).to(HERE)
    norm = modeling_qwen3.Qwen3RMSNorm(head_dim, EPS).to(HERE)
    generator = torch.Generator(HERE).manual_seed(0)
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
    x, positions = random(n, heads, head_dim), torch.arange(3, 3 + n, device=HERE)
    with torch.no_grad():
        cos, sin = rotary(x, torch.arange(3 + n, device=HERE)[None])
        normed = norm(x).transpose(0, 1)[None]  # (1, heads, n, head_dim)
        turned, _ = modeling_qwen3.apply_rotary_pos_emb(normed, normed, cos[:, 3:], sin[:, 3:])
    half = head_dim // 2
    rope = RopeTable(cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous())
    OURS.norm_rope(x, positions, rope, norm.weight.detach(), EPS)
    close(x, turned[0].transpose(0, 1))


def test_the_fused_arg_max_is_that_of_the_logits() -> None:
    head = OURS.linear(300, 24, bias=False, source_dtype=torch.float32)
    head.load_rows(random(300, 24), 0)
    x = random(5, 24)
    x[3] = float("nan")
    best = OURS.fused_argmax(head, x, None)
    assert best is not None
    assert best.tolist() == OURS.argmax(head(x, poisoned(5, 300))).tolist()
    assert best[3] == -1


def test_no_fused_arg_max_under_a_cap_or_with_a_bias() -> None:
    """A cap may make two logits one, of which the first would win; the product has no bias."""
    plain = OURS.linear(8, 4, bias=False, source_dtype=torch.float32)
    biased = OURS.linear(8, 4, bias=True, source_dtype=torch.float32)
    assert OURS.fused_argmax(plain, random(1, 4), 30.0) is None
    assert OURS.fused_argmax(biased, random(1, 4), None) is None


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_the_fused_log_probabilities_are_those_of_the_logits(softcap: float | None) -> None:
    head = OURS.linear(300, 24, bias=False, source_dtype=torch.float32)
    head.load_rows(random(300, 24), 0)
    x, targets = random(5, 24), torch.tensor([0, 299, 7, 7, 128], device=HERE)
    x[3] = float("nan")
    found = OURS.fused_log_prob(head, x, targets, softcap)
    assert found is not None
    logits = head(x, poisoned(5, 300))
    best = OURS.argmax(logits)
    if softcap is not None:
        logits = softcap * (logits / softcap).tanh()
    assert found[1].tolist() == best.tolist()
    torch.testing.assert_close(
        found[0], PLAIN.log_prob(logits, best, targets), rtol=1e-5, atol=1e-6, equal_nan=True
    )
    biased = OURS.linear(8, 4, bias=True, source_dtype=torch.float32)
    assert OURS.fused_log_prob(biased, random(1, 4), targets[:1], None) is None


def test_the_engines_own_tensors_are_not_checked_at_each_launch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (gemm, norm, swiglu):
        monkeypatch.setattr(module, "_check", None)
    linear = OURS.linear(8, 16, bias=False, source_dtype=torch.float32)
    linear.load_rows(random(8, 16), 0)
    linear(random(3, 16), poisoned(3, 8))
    OURS.rms_norm(random(3, 16), random(16), EPS, poisoned(3, 16))
    OURS.gated(random(3, 16), "silu", poisoned(3, 8))
