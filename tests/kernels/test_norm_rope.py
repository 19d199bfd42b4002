"""Norm, rotation and write in one pass against float64, and against its parts."""

import pytest
import torch

pytest.importorskip("triton")

from flipfast_kernels.kv_cache import write_kv
from flipfast_kernels.norm_rope import (
    norm_rope,
    norm_rope_ref,
    norm_rope_write,
    norm_rope_write_ref,
)

EPS = 1e-6
PAGE = 4
# The interpreter rounds to bfloat16 towards zero.
DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
TOLERANCE = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
# Query heads, key heads, head size, numbers that turn, norm of queries and of keys.
SHAPES = [
    (4, 2, 32, 32, "head", "head"),
    (3, 1, 33, None, "head", None),
    (1, 1, 1, None, "full", "full"),
    (5, 3, 20, 20, "full", "full"),
    (2, 1, 65, 64, None, "head"),
    (3, 2, 24, 10, "full", "head"),
    (2, 2, 8, None, None, None),
    (14, 2, 64, 64, None, None),
    (2, 1, 31, 2, None, None),
]


def inputs(shape, n, device, dtype=torch.float32, page_dtype=None):
    """Arguments with queries and keys as views of one tensor, values of another."""
    n_heads, n_kv_heads, head_dim, rotary_dim, query_norm, key_norm = shape
    generator = torch.Generator().manual_seed(n + head_dim)

    def random(*size):
        return torch.randn(size, generator=generator)

    fused = random(n, n_heads + n_kv_heads + 1, head_dim + 3).to(device, dtype)
    query, key, _ = fused[..., :head_dim].split((n_heads, n_kv_heads, 1), dim=1)
    value = random(n, n_kv_heads, head_dim + 2).to(device, dtype)[..., 2:]
    n_pages = n // PAGE + 2
    slots = PAGE + torch.randperm((n_pages - 1) * PAGE, generator=generator)[:n]
    cos = sin = None
    if rotary_dim is not None:
        angles = torch.arange(50.0)[:, None] * torch.rand(rotary_dim // 2, generator=generator)
        cos, sin = angles.cos().to(device), angles.sin().to(device)
    sizes = {None: None, "head": (head_dim, head_dim)}
    sizes["full"] = (n_heads * head_dim, n_kv_heads * head_dim)
    weights = [
        None if norm is None else (1 + random(sizes[norm][i]) / 8).to(device)
        for i, norm in enumerate((query_norm, key_norm))
    ]
    shape = (n_pages, PAGE, n_kv_heads, head_dim)
    pages = [torch.full(shape, 7.0, dtype=page_dtype or dtype, device=device) for _ in range(2)]
    positions = torch.randint(0, 50, (n,), generator=generator)
    given = {"query": query, "key": key, "value": value}
    given |= dict(zip(("key_pages", "value_pages"), pages, strict=True))
    given |= {"slot_mapping": slots.to(device), "positions": positions.to(device)}
    given |= {"cos": cos, "sin": sin, "query_weight": weights[0], "key_weight": weights[1]}
    return fused, given


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_reference(shape, dtype, device):
    n, tolerance = 7, TOLERANCE[dtype]
    fused, given = inputs(shape, n, device, dtype)
    before = fused.clone()
    expected = {k: None if v is None else v.clone() for k, v in given.items()}
    norm_rope_write_ref(**expected, eps=EPS)
    norm_rope_write(**given, eps=EPS)
    for name in ("query", "key_pages"):
        torch.testing.assert_close(given[name], expected[name], rtol=tolerance, atol=tolerance)
    assert torch.equal(given["value_pages"], expected["value_pages"])
    n_heads, n_kv_heads, head_dim = shape[:3]
    for pages in (given["key_pages"], given["value_pages"]):
        assert (pages == 7.0).sum() == pages.numel() - n * n_kv_heads * head_dim
    # Nothing of the rows but the queries is touched, nor behind their heads.
    assert torch.equal(fused[:, n_heads:], before[:, n_heads:])
    assert torch.equal(fused[..., head_dim:], before[..., head_dim:])


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_its_parts(shape, device):
    # Sums over a head may run in another order where there is one tile fewer; else bits are equal.
    tolerance = 5e-6 if device.type == "cuda" and (shape[4] or shape[5]) else 0
    _, given = inputs(shape, 5, device)
    query, key = given["query"].clone(), given["key"].clone()
    pages = [given["key_pages"].clone(), given["value_pages"].clone()]
    tables = [given[name] for name in ("positions", "cos", "sin")]
    norm_rope(query, *tables, given["query_weight"], EPS)
    torch.testing.assert_close(
        query.double(),
        norm_rope_ref(given["query"], *tables, given["query_weight"], EPS),
        rtol=5e-6,
        atol=5e-6,
    )
    norm_rope(key, *tables, given["key_weight"], EPS)
    write_kv(key, given["value"], *pages, given["slot_mapping"])
    norm_rope_write(**given, eps=EPS)
    for name, expected in (("query", query), ("key_pages", pages[0])):
        torch.testing.assert_close(given[name], expected, rtol=tolerance, atol=tolerance)
    assert torch.equal(given["value_pages"], pages[1])


def test_rounded_once_to_the_dtype_of_the_pages(device):
    _, wide = inputs(SHAPES[0], 5, device)
    _, narrow = inputs(SHAPES[0], 5, device, page_dtype=torch.float16)
    norm_rope_write(**wide, eps=EPS)
    norm_rope_write(**narrow, eps=EPS)
    assert torch.equal(narrow["query"], wide["query"])
    assert torch.equal(narrow["key_pages"], wide["key_pages"].half())
    assert torch.equal(narrow["value_pages"], wide["value_pages"].half())


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[5]])
def test_a_token_has_the_same_bits_in_every_company(shape, device):
    n = 257 if device.type == "cuda" else 17  # the interpreter runs the same lines for each token
    _, given = inputs(shape, n, device)
    names = ("query", "key", "value", "slot_mapping", "positions")
    alone = []
    for i in (0, n // 2, n - 1):
        one = given | {name: given[name][i : i + 1].clone() for name in names}
        one |= {name: given[name].clone() for name in ("key_pages", "value_pages")}
        norm_rope_write(**one, eps=EPS)
        alone.append((i, one))
    norm_rope_write(**given, eps=EPS)
    for i, one in alone:
        assert torch.equal(one["query"][0], given["query"][i])
        page, place = divmod(int(given["slot_mapping"][i]), PAGE)
        assert torch.equal(one["key_pages"][page, place], given["key_pages"][page, place])
        assert torch.equal(one["value_pages"][page, place], given["value_pages"][page, place])


def test_padded_tokens_share_the_first_slot(device):
    _, given = inputs(SHAPES[0], 6, device)
    _, clean = inputs(SHAPES[0], 6, device)
    given["slot_mapping"][3:] = 0
    norm_rope_write(**given, eps=EPS)
    norm_rope_write(**clean, eps=EPS)
    assert torch.equal(given["query"], clean["query"])
    for slot in clean["slot_mapping"][:3].tolist():
        at = divmod(slot, PAGE)
        assert torch.equal(given["key_pages"][at], clean["key_pages"][at])
    # The shared slot holds one of those that went there; none of the others went anywhere.
    written = [bool((page != 7.0).any()) for page in given["key_pages"].flatten(0, 1)]
    assert sum(written) == 4
    candidates = [clean["key_pages"][divmod(int(slot), PAGE)] for slot in clean["slot_mapping"][3:]]
    assert any(torch.equal(given["key_pages"][0, 0], candidate) for candidate in candidates)


def test_no_tokens(device):
    _, given = inputs(SHAPES[0], 0, device)
    norm_rope_write(**given, eps=EPS)
    assert (given["key_pages"] == 7.0).all()
    norm_rope(given["query"], given["positions"], given["cos"], given["sin"], None, EPS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": torch.ones(2, 3)}, r"query has shape \(2, 3\): expected \(tokens"),
        ({"query": torch.ones(2, 3, 8).int()}, "query is torch.int32"),
        ({"query": torch.ones(2, 8, 3).mT}, r"query has strides \(24, 1, 3\)"),
        ({"query": torch.ones(2, 257, 128)}, "may make 32768 numbers a token"),
        ({"query": torch.ones(2, 3, 6)}, r"key_pages has shape \(4, 4, 2, 8\)"),
        ({"key": torch.ones(3, 2, 8)}, r"key has shape \(3, 2, 8\): expected \(2, 2, 8\)"),
        ({"value": torch.ones(2, 1, 8)}, r"value has shape \(2, 1, 8\): expected \(2, 2, 8\)"),
        ({"value": torch.ones(2, 2, 8).int()}, "value is torch.int32"),
        ({"value": torch.ones(2, 2, 8, device="meta")}, "value is on meta"),
        ({"key_pages": torch.ones(4, 3, 2, 8)}, r"key_pages has shape \(4, 3, 2, 8\)"),
        ({"value_pages": torch.ones(4, 4, 2, 8).half()}, "value_pages has dtype torch.float16"),
        ({"slot_mapping": torch.ones(2).int()}, "slot_mapping is torch.int32"),
        ({"slot_mapping": torch.arange(4)[::2]}, r"slot_mapping has strides \(2,\)"),
        ({"slot_mapping": torch.tensor([1, 16])}, r"slot_mapping has 16 at 1: .* \[0, 16\)"),
        ({"slot_mapping": torch.tensor([-1, 1])}, "slot_mapping has -1 at 0"),
        ({"positions": torch.arange(3)}, r"positions is torch.int64 \(3,\): pass int64 \(2,\)"),
        ({"positions": torch.tensor([0, 9])}, r"positions has 9 at 1: it must lie in \[0, 9\)"),
        ({"cos": None}, "cos is None: pass both"),
        ({"sin": None}, "sin is None: pass both"),
        ({"cos": torch.ones(9, 5)}, r"cos has shape \(9, 5\)"),
        ({"cos": torch.ones(9, 0)}, r"cos has shape \(9, 0\)"),
        ({"sin": torch.ones(8, 4)}, r"sin has shape \(8, 4\): expected \(9, 4\)"),
        ({"sin": torch.ones(9, 4).half()}, "sin is torch.float16: pass float32"),
        ({"query_weight": torch.ones(16)}, r"query_weight has shape \(16,\): expected \(8,\)"),
        ({"key_weight": torch.ones(24)}, r"key_weight has shape \(24,\): expected \(8,\)"),
        ({"key_weight": torch.ones(8).half()}, "key_weight is torch.float16"),
        ({"key_weight": torch.ones(16)[::2]}, r"key_weight has strides \(2,\)"),
    ],
)
def test_bad_arguments_are_named(change, message, device):
    given = {"query": torch.ones(2, 3, 8), "key": torch.ones(2, 2, 8), "value": torch.ones(2, 2, 8)}
    given |= {"key_pages": torch.ones(4, 4, 2, 8), "value_pages": torch.ones(4, 4, 2, 8)}
    given |= {"slot_mapping": torch.arange(2), "positions": torch.arange(2)}
    given |= {"cos": torch.ones(9, 4), "sin": torch.zeros(9, 4)}
    given |= {"query_weight": torch.ones(8), "key_weight": torch.ones(16)} | change
    here = {k: v if v is None or v.is_meta else v.to(device) for k, v in given.items()}
    with pytest.raises(ValueError, match=message):
        norm_rope_write(**here, eps=EPS)


def test_the_norm_and_rotation_alone_name_them_too(device):
    x, positions = torch.ones(2, 3, 8, device=device), torch.tensor([0, 9], device=device)
    table = torch.ones(9, 4, device=device)
    with pytest.raises(ValueError, match="positions has 9 at 1"):
        norm_rope(x, positions, table, table, None, EPS)
    with pytest.raises(ValueError, match=r"weight has shape \(5,\)"):
        norm_rope(x, positions, None, None, torch.ones(5, device=device), EPS)
