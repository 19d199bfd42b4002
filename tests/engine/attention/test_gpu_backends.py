"""The attention backends for CUDA: the project's own as it runs, the packages' through stand-ins.

A stand-in has the signature of the real function, insists on what that insists on, and answers
with the reference, so that what is tested is the order and meaning of what it is given.
"""

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch

pytest.importorskip("triton")

from flipfast.engine.attention import AttentionShape, available_attention, load_attention
from flipfast.errors import ConfigError, MissingDependencyError
from flipfast_kernels.paged_attention import paged_attention_ref
from tests.paging import make_step

HERE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHAPE = AttentionShape(4, 2, 16, torch.float16, torch.device("cuda"))


def expected(step, window=None, softcap=None, scale=0.25):
    pages = step.query, step.key_pages, step.value_pages
    return paged_attention_ref(*pages, *step.index, scale=scale, window=window, softcap=softcap)


def attended(backend, step, window=None, softcap=None, scale=0.25):
    rows, heads, dim = step.query.shape
    nan = torch.full((rows, heads * dim), float("nan"), device=step.query.device)
    return backend.attend(
        step.query,
        (step.key_pages, step.value_pages),
        step.metadata,
        nan.to(step.query.dtype),
        scale=scale,
        window=window,
        softcap=softcap,
    )


@pytest.fixture
def hopper(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    for name in ("flash_attn", "flash_attn.cute", "vllm", "vllm.vllm_flash_attn"):
        monkeypatch.setitem(sys.modules, name, None)


def install(monkeypatch, name, **functions):
    module = ModuleType(name)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, name, module)


def answer(q, k, v, cu_seqlens_q, seq_lens, table, scale, window_size, softcap):
    window = None if window_size[0] in (-1, None) else window_size[0] + 1
    index = (cu_seqlens_q, seq_lens, table)
    options = {"scale": scale, "window": window, "softcap": softcap or None}
    return paged_attention_ref(q, k, v, *index, **options).view(q.shape).to(q.dtype)


@pytest.mark.slow
def test_triton_backend_writes_and_attends():
    shape = replace(SHAPE, dtype=torch.float32, device=HERE)
    backend = load_attention("triton_paged", shape, batch_invariant=True)
    cache = backend.allocate(4)
    assert backend.page_bytes() * 4 == sum(side.nbytes for side in cache)
    step = make_step([3, 1], [20, 1], device=HERE)
    slots = torch.tensor([40, 17, 18], device=HERE)
    kv = torch.randn(3, 8, 16, dtype=torch.float64, device=HERE).float()
    backend.write(kv[:, :2], kv[:, 2:4], cache, slots)
    assert torch.equal(cache[1][2, 8], kv[0, 2:4])
    assert torch.equal(cache[0][1, 2], kv[2, :2])
    backend.copy_pages(cache, torch.tensor([2, 1], device=HERE), torch.tensor([3, 2], device=HERE))
    assert torch.equal(cache[1][3, 8], kv[0, 2:4])
    assert torch.equal(cache[0][2, 2], kv[2, :2])
    for window, softcap in ((None, None), (5, 3.0)):
        difference = attended(backend, step, window, softcap) - expected(step, window, softcap)
        assert difference.abs().max() < 2e-6


def flash_attn_2(monkeypatch, calls):
    def flash_attn_varlen_func(
        q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0,
        softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, block_table=None,
    ):  # fmt: skip
        assert causal
        assert k.shape[1] % 256 == 0
        assert cu_seqlens_k.dtype == torch.int32
        assert (max_seqlen_q, max_seqlen_k) == (
            cu_seqlens_q.diff().max(),
            cu_seqlens_k.diff().max(),
        )
        calls.append("varlen")
        lens = cu_seqlens_k.diff()
        return answer(q, k, v, cu_seqlens_q, lens, block_table, softmax_scale, window_size, softcap)

    def flash_attn_with_kvcache(
        q, k_cache, v_cache, k=None, v=None, cache_seqlens=None, block_table=None,
        softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, num_splits=0,
    ):  # fmt: skip
        assert causal
        assert num_splits == 1
        calls.append("decode")
        starts = torch.arange(len(q) + 1, dtype=torch.int32)
        index = (starts, cache_seqlens, block_table)
        out = answer(q[:, 0], k_cache, v_cache, *index, softmax_scale, window_size, softcap)
        return out[:, None]

    install(
        monkeypatch,
        "flash_attn",
        flash_attn_varlen_func=flash_attn_varlen_func,
        flash_attn_with_kvcache=flash_attn_with_kvcache,
    )


def vllm_3(monkeypatch, calls):
    def flash_attn_varlen_func(
        q, k, v, max_seqlen_q, cu_seqlens_q, max_seqlen_k, cu_seqlens_k=None, seqused_k=None,
        softmax_scale=None, causal=False, window_size=None, softcap=0.0, block_table=None,
        out=None, num_splits=0, fa_version=2,
    ):  # fmt: skip
        assert causal
        assert (num_splits, fa_version) == (1, 3)
        assert (max_seqlen_q, max_seqlen_k) == (cu_seqlens_q.diff().max(), seqused_k.max())
        calls.append("three")
        index = (cu_seqlens_q, seqused_k, block_table)
        return out.copy_(answer(q, k, v, *index, softmax_scale, window_size, softcap))

    install(monkeypatch, "vllm")
    install(
        monkeypatch,
        "vllm.vllm_flash_attn",
        flash_attn_varlen_func=flash_attn_varlen_func,
        is_fa_version_supported=lambda version, device=None: version == 3,
    )


def flash_attn_4(monkeypatch, calls):
    def flash_attn_varlen_func(
        q, k, v, qv=None, cu_seqlens_q=None, cu_seqlens_k=None, max_seqlen_q=None,
        max_seqlen_k=None, seqused_k=None, page_table=None, softmax_scale=None, causal=False,
        window_size=(None, None), softcap=0.0, num_splits=1,
    ):  # fmt: skip
        assert causal
        assert num_splits == 1
        assert cu_seqlens_k is None
        calls.append("four")
        index = (cu_seqlens_q, seqused_k, page_table)
        return answer(q, k, v, *index, softmax_scale, window_size, softcap), None

    install(monkeypatch, "flash_attn")
    install(monkeypatch, "flash_attn.cute", flash_attn_varlen_func=flash_attn_varlen_func)


def varlen_attn(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1),
    enable_gqa=False, seqused_k=None, block_table=None, num_splits=None,
):  # fmt: skip
    assert window_size[1] == 0
    assert num_splits == 1
    assert key.shape[1] % 256 == 0
    assert cu_seq_k.shape == cu_seq_q.shape
    assert enable_gqa
    index = (cu_seq_q, seqused_k, block_table)
    return answer(query, key, value, *index, scale, window_size, 0.0)


def test_torch_varlen_is_called_as_torch_means_it(hopper, monkeypatch):
    from torch.nn.attention import varlen

    monkeypatch.setattr(varlen, "varlen_attn", varlen_attn)
    backend = load_attention("torch_varlen", SHAPE, batch_invariant=True)
    step = make_step([3, 1], [20, 300], page_size=backend.page_size, dtype=torch.float16)
    for window in (None, 7):
        assert torch.equal(attended(backend, step, window), expected(step, window).half())
    with pytest.raises(ConfigError, match="cap attention scores, here to 3"):
        attended(backend, step, None, 3.0)


@pytest.mark.parametrize(
    ("package", "softcap", "invariant", "names"),
    [
        (flash_attn_2, 3.0, False, ["varlen", "decode"]),
        (vllm_3, 3.0, True, ["three", "three"]),
        (flash_attn_4, None, False, ["four", "four"]),
    ],
)
def test_packages_are_called_as_they_mean_it(
    package, softcap, invariant, names, hopper, monkeypatch
):
    calls = []
    package(monkeypatch, calls)
    backend = load_attention("flash_attn", replace(SHAPE, softcap=softcap is not None))
    assert backend.batch_invariant is invariant
    for q_lens in ([3, 1], [1, 1]):
        options = {"page_size": backend.page_size, "dtype": torch.float16}
        step = make_step(q_lens, [20, 300], **options)
        assert torch.equal(attended(backend, step, 7, softcap), expected(step, 7, softcap).half())
        assert torch.equal(attended(backend, step), expected(step).half())
    assert [calls[0], calls[2]] == names


def test_a_step_with_an_idle_sequence_is_no_decode(hopper, monkeypatch):
    calls = []
    flash_attn_2(monkeypatch, calls)
    backend = load_attention("flash_attn", SHAPE)
    step = make_step([1, 0], [20, 30], page_size=backend.page_size, dtype=torch.float16)
    assert torch.equal(attended(backend, step), expected(step).half())
    assert calls == ["varlen"]


def test_the_best_package_for_the_device_is_taken(hopper, monkeypatch):
    flash_attn_2(monkeypatch, [])
    assert load_attention("flash_attn", SHAPE).page_size == 256
    vllm_3(monkeypatch, [])
    assert load_attention("flash_attn", SHAPE).page_size == 16
    wide = replace(SHAPE, head_dim=256)
    assert not load_attention("flash_attn", wide).batch_invariant
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    assert load_attention("flash_attn", SHAPE).page_size == 256


@pytest.mark.parametrize("name", ["flash_attn", "torch_varlen"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": torch.float32}, "not torch.float32"),
        ({"head_dim": 264}, "not 264"),
        ({"head_dim": 20}, "not 20"),
        ({"n_heads": 3}, "a multiple of 2 query heads, not 3"),
        ({"device": torch.device("cpu")}, "needs a CUDA device, not cpu"),
    ],
)
def test_what_cannot_be_served_is_refused(name, change, message, hopper):
    with pytest.raises(ConfigError, match=message):
        load_attention(name, replace(SHAPE, **change))


@pytest.mark.parametrize("name", ["triton_paged", "flash_attn", "torch_varlen"])
def test_a_device_that_is_not_there_is_refused(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"{name} is asked for on cuda, but torch sees no CUDA"):
        load_attention(name, SHAPE)


def test_more_refusals(hopper, monkeypatch):
    with pytest.raises(ConfigError, match="torch_varlen cannot cap"):
        load_attention("torch_varlen", replace(SHAPE, softcap=True))
    with pytest.raises(MissingDependencyError, match=r"docs/flash_attention\.md"):
        load_attention("flash_attn", SHAPE)
    flash_attn_4(monkeypatch, [])
    with pytest.raises(ConfigError, match="head size 16 and a cap"):
        load_attention("flash_attn", replace(SHAPE, softcap=True))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    with pytest.raises(ConfigError, match=r"needs compute capability 8\.0 or newer.*has 7\.5"):
        load_attention("torch_varlen", SHAPE)
    with pytest.raises(ConfigError, match="triton_paged needs compute capability"):
        load_attention("triton_paged", SHAPE)
    with pytest.raises(ConfigError, match="up to 256 in multiples of 1, not 512"):
        load_attention("triton_paged", replace(SHAPE, head_dim=512))


def test_packages_that_are_too_old_are_named(hopper, monkeypatch):
    from torch.nn.attention import varlen

    def older(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False):
        raise AssertionError("must not be called")

    monkeypatch.setattr(varlen, "varlen_attn", older)
    with pytest.raises(ConfigError, match="block_table, seqused_k, num_splits, enable_gqa"):
        load_attention("torch_varlen", SHAPE)
    install(monkeypatch, "flash_attn", flash_attn_varlen_func=older, flash_attn_with_kvcache=older)
    with pytest.raises(ConfigError, match=r"varlen_func has no block_table, softcap"):
        load_attention("flash_attn", SHAPE)


def usable(shape):
    for name in available_attention():
        try:
            yield name, load_attention(name, shape)
        except (ConfigError, MissingDependencyError):
            continue


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("n_heads", "n_kv_heads", "head_dim"), [(16, 8, 128), (14, 2, 64)])
@pytest.mark.parametrize("window", [None, 200])
def test_backends_agree_and_keep_their_word(n_heads, n_kv_heads, head_dim, dtype, window):
    shape = AttentionShape(n_heads, n_kv_heads, head_dim, dtype, HERE)
    sizes = {"n_heads": n_heads, "n_kv_heads": n_kv_heads, "head_dim": head_dim}
    q_lens, seq_lens = [300, 1, 77, 1], [300, 1500, 2300, 40]
    scale = head_dim**-0.5
    for name, backend in usable(shape):
        step = make_step(
            q_lens, seq_lens, page_size=backend.page_size, dtype=dtype, device=HERE, behind=0,
            **sizes,
        )  # fmt: skip
        for pages in (step.key_pages, step.value_pages):
            if name != "triton_paged":
                pages.nan_to_num_(0.0)
        whole = attended(backend, step, window, None, scale)
        right = expected(step, window, None, scale)
        limit = 2 * (sdpa(step, window, scale) - right).abs().max()
        assert (whole - right).abs().max() <= limit, name
        if not backend.batch_invariant:
            continue
        starts = step.metadata.cu_seqlens_q.tolist()
        for rows in ([(0, 0, 300)], [(3, 0, 1), (0, 100, 201)], [(0, 299, 300)], [(2, 70, 71)]):
            part = attended(backend, step.part(rows), window, None, scale)
            places = torch.cat([torch.arange(starts[i] + a, starts[i] + b) for i, a, b in rows])
            assert torch.equal(part, whole[places.to(HERE)]), (name, rows)


def sdpa(step, window, scale):
    """torch's own attention, one sequence at a time, in the same dtype."""
    results = []
    m, heads = step.metadata, step.query.shape[1]
    for i, length in enumerate(m.seq_lens.tolist()):
        begin, end = m.cu_seqlens_q[i : i + 2].tolist()
        pages = m.block_tables[i, : -(-length // step.key_pages.shape[1])].long()
        key, value = (
            side[pages].flatten(0, 1)[:length].repeat_interleave(heads // side.shape[2], 1)
            for side in (step.key_pages, step.value_pages)
        )
        at = torch.arange(length, device=HERE)
        distance = at[length - (end - begin) :, None] - at
        seen = (distance >= 0) & (distance < (window or length))
        q, k, v = (x.transpose(0, 1)[None] for x in (step.query[begin:end], key, value))
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, seen, scale=scale)
        results.append(out[0].transpose(0, 1).flatten(1))
    return torch.cat(results)
