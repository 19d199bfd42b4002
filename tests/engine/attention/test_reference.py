"""The reference attention against torch's own, and the choice of a backend."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch.nn import functional

import flipfast.engine.attention as attention
from flipfast.engine.attention import (
    AttentionBackend,
    AttentionMetadata,
    AttentionShape,
    available_attention,
    load_attention,
)
from flipfast.engine.attention.reference import Backend
from flipfast.errors import ConfigError, MissingDependencyError

CPU = torch.device("cpu")


def shape_of(
    n_heads: int, n_kv_heads: int, head_dim: int, dtype: torch.dtype = torch.float32
) -> AttentionShape:
    return AttentionShape(n_heads, n_kv_heads, head_dim, dtype, CPU)


def expected_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """One sequence in float64, by torch's own attention where it has no softcap."""
    q, k, v = (x.double().transpose(0, 1) for x in (query, key, value))
    groups = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
    n, length = q.shape[1], k.shape[1]
    distance = torch.arange(length - n, length)[:, None] - torch.arange(length)[None]
    seen = (distance >= 0) & (distance < (window or length + 1))
    if softcap is None:
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)
    else:
        scores = softcap * torch.tanh(q @ k.transpose(1, 2) * scale / softcap)
        out = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v
    return out.transpose(0, 1).flatten(1)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("window", [None, 1, 20])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (8, 1)])
def test_against_torch(heads: tuple[int, int], window: int | None, softcap: float | None) -> None:
    assert_right(Backend(shape_of(*heads, 12)), heads, 12, window, softcap)


@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("name", available_attention())
def test_every_backend_that_runs_here(name: str, window: int | None) -> None:
    """What a file of the folder must be, whoever adds it."""
    try:
        backend = load_attention(name, shape_of(4, 2, 16))
    except (ConfigError, MissingDependencyError) as error:
        pytest.skip(str(error))
    assert_right(backend, (4, 2), 16, window, None)


def assert_right(
    backend: AttentionBackend,
    heads: tuple[int, int],
    head_dim: int,
    window: int | None,
    softcap: float | None,
) -> None:
    """Prefill, chunks and decode in one step, over scattered pages, against float64."""
    torch.manual_seed(0)
    n_heads, n_kv_heads = heads
    size = backend.page_size
    lengths, queries = [1, 16, 33, 300, 64], [1, 3, 33, 200, 1]
    keys = [torch.randn(length, n_kv_heads, head_dim) for length in lengths]
    values = [torch.randn(length, n_kv_heads, head_dim) for length in lengths]
    cache = backend.allocate(64)
    for pages in cache:
        pages.fill_(float("nan"))
    free = iter((torch.randperm(63) + 1).tolist())
    tables = torch.full((len(lengths), -(-max(lengths) // size) + 6), 2**31 - 1, dtype=torch.int32)
    slots = []
    for seq, length in enumerate(lengths):
        n_pages = -(-length // size)
        tables[seq, :n_pages] = torch.tensor([next(free) for _ in range(n_pages)])
        at = torch.arange(length)
        slots.append(tables[seq, at // size].long() * size + at % size)
    # A view whose rows lie apart, as in the decoder.
    fused = torch.cat([torch.cat(keys), torch.cat(values)], dim=1)
    backend.write(fused[:, :n_kv_heads], fused[:, n_kv_heads:], cache, torch.cat(slots))

    query = torch.randn(sum(queries), n_heads + 2, head_dim)[:, :n_heads]
    starts = torch.tensor([0, *queries]).cumsum(0).int()
    metadata = AttentionMetadata(
        starts, torch.tensor(lengths).int(), tables, torch.cat(slots), 200, 300
    )
    out = torch.full((sum(queries), n_heads * head_dim), float("nan"))
    result = backend.attend(query, cache, metadata, out, scale=0.3, window=window, softcap=softcap)
    assert result is out
    for seq, rows in enumerate(query.split(queries)):
        expected = expected_rows(rows, keys[seq], values[seq], 0.3, window, softcap)
        result = out[starts[seq] : starts[seq + 1]]
        torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)


def test_half_precision_rounds_keys_and_values_only() -> None:
    torch.manual_seed(0)
    backend = Backend(shape_of(2, 1, 8, torch.bfloat16))
    key, value, query = torch.randn(5, 1, 8), torch.randn(5, 1, 8), torch.randn(5, 2, 8)
    cache = backend.allocate(2)
    assert {pages.dtype for pages in cache} == {torch.bfloat16}
    assert backend.page_bytes() == sum(pages[0].nbytes for pages in cache)
    slots = torch.arange(16, 21)
    backend.write(key, value, cache, slots)
    metadata = AttentionMetadata(
        torch.tensor([0, 5]).int(), torch.tensor([5]).int(), torch.tensor([[1]]).int(), slots, 5, 5
    )
    out = backend.attend(
        query, cache, metadata, torch.empty(5, 16), scale=1.0, window=None, softcap=None
    )
    expected = expected_rows(query, key.bfloat16(), value.bfloat16(), 1.0, None, None)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


def test_backends_are_files() -> None:
    assert "reference" in available_attention()
    assert "base" not in available_attention()


def test_a_backend_by_name() -> None:
    assert isinstance(load_attention("reference", shape_of(2, 1, 8)), Backend)
    with pytest.raises(ConfigError, match="'nothing'; the backends are: .*reference"):
        load_attention("nothing", shape_of(2, 1, 8))
    with pytest.raises(ConfigError, match="reference attention backend is not batch-invariant"):
        load_attention("reference", shape_of(2, 1, 8), batch_invariant=True)


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> dict[str, type[Backend]]:
    """Backends in place of the real ones, by name; preferred first: first, second, reference."""
    backends: dict[str, type[Backend]] = {}

    def load(name: str) -> ModuleType:
        module = ModuleType(name)
        module.Backend = backends[name.split(".")[-1]]  # type: ignore[attr-defined]
        return module

    monkeypatch.setattr(attention, "available_attention", lambda: [*backends, "reference"])
    monkeypatch.setattr(attention, "_PREFERENCE", {"cpu": ("first", "second", "reference")})
    real = attention.import_module
    monkeypatch.setattr(
        attention,
        "import_module",
        lambda name: load(name) if name.split(".")[-1] in backends else real(name),
    )
    return backends


def refusing(error: Exception) -> type[Backend]:
    class Refusing(Backend):
        def __init__(self, shape: AttentionShape) -> None:
            raise error

    return Refusing


class Invariant(Backend):
    batch_invariant = True


def test_the_first_that_can_serve(others: dict[str, type[Backend]]) -> None:
    shape = shape_of(2, 1, 8)
    assert type(load_attention(None, shape)) is Backend
    others["second"] = Invariant
    assert type(load_attention(None, shape)) is Invariant
    others["first"] = type("First", (Backend,), {})
    assert type(load_attention(None, shape)) is others["first"]
    assert type(load_attention(None, shape, batch_invariant=True)) is Invariant


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ConfigError("head_dim 8 is too small"), ConfigError),
        (MissingDependencyError("no such package: head_dim 8"), MissingDependencyError),
        (ModuleNotFoundError("No module named 'head_dim 8'"), MissingDependencyError),
        (ImportError("undefined symbol: head_dim 8"), MissingDependencyError),
    ],
)
def test_one_that_refuses_is_passed_over(
    others: dict[str, type[Backend]], error: Exception, raised: type[Exception]
) -> None:
    others["first"] = refusing(error)
    shape = shape_of(2, 1, 8)
    assert type(load_attention(None, shape)) is Backend
    with pytest.raises(raised, match="head_dim 8"):
        load_attention("first", shape)
    with pytest.raises(ConfigError, match="tried first: .*head_dim 8.*; reference: .*invariant"):
        load_attention(None, shape, batch_invariant=True)


def test_nothing_else_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    others = {f"flipfast.engine.attention.{name}" for name in available_attention()}
    others.remove("flipfast.engine.attention.reference")
    for name in others:
        monkeypatch.delitem(sys.modules, name, raising=False)
    available_attention()
    load_attention("reference", shape_of(2, 1, 8))
    assert not others & set(sys.modules)
