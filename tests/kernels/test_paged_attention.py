"""Attention over pages against float64, and a token's bits in every step that may hold it."""

import pytest
import torch

pytest.importorskip("triton")

from flipfast_kernels import paged_attention as module
from flipfast_kernels.jit.paged_attention import attend_kernel
from flipfast_kernels.paged_attention import (
    AttentionConfig,
    attention_configs,
    paged_attention,
    paged_attention_ref,
)
from tests.paging import make_step

LOW = AttentionConfig(block_m=16, block_n=16, split=32, num_warps=4, num_stages=1)
TALL = AttentionConfig(block_m=64, block_n=16, split=32, num_warps=4, num_stages=1)


def attend(step, **options):
    rows, heads, dim = step.query.shape
    out = torch.full((rows, heads * dim), float("nan"), device=step.query.device)
    return paged_attention(
        step.query,
        step.key_pages,
        step.value_pages,
        *step.index,
        **step.longest,
        scale=dim**-0.5,
        out=out.to(step.query.dtype),
        **options,
    )


def error(step, **options):
    scores = {name: options.get(name) for name in ("window", "softcap")}
    expected = paged_attention_ref(
        step.query,
        step.key_pages,
        step.value_pages,
        *step.index,
        scale=step.query.shape[2] ** -0.5,
        **scores,
    )
    return ((attend(step, **options) - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize(
    ("q_lens", "seq_lens"),
    [([1], [1]), ([33], [33]), ([1, 5, 9], [65, 31, 40]), ([3, 1], [4, 64])],
)
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (7, None), (20, 5.0)])
def test_equals_the_reference(q_lens, seq_lens, window, softcap, device):
    step = make_step(q_lens, seq_lens, n_heads=2, n_kv_heads=1, device=device)
    assert error(step, window=window, softcap=softcap, config=LOW) < 2e-6


@pytest.mark.parametrize(
    ("n_heads", "n_kv_heads", "head_dim", "page_size"),
    [(2, 2, 32, 16), (7, 1, 16, 64), (6, 2, 80, 32), (2, 1, 256, 16)],
)
def test_heads_and_pages_of_other_sizes(n_heads, n_kv_heads, head_dim, page_size, device):
    shape = {"n_heads": n_heads, "n_kv_heads": n_kv_heads, "head_dim": head_dim}
    step = make_step([5, 1], [23, 40], page_size=page_size, device=device, **shape)
    assert error(step) < 2e-6


@pytest.mark.parametrize(("dtype", "most"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_half_precision(dtype, most, device):
    step = make_step([9, 1], [70, 33], dtype=dtype, device=device)
    assert error(step) < most
    assert error(step, config=LOW, window=30, softcap=3.0) < most


@pytest.mark.parametrize("config", [LOW, TALL])
def test_programs_that_start_together_read_the_heads_of_one_sequence(config, device, monkeypatch):
    """Its keys lie side by side: the first two programs write both groups of heads of one."""

    class First:
        def __getitem__(self, grid):
            return attend_kernel[(2, grid[1])]

    monkeypatch.setattr(module, "attend_kernel", First())
    step = make_step([1, 1, 1], [20, 9, 30], n_heads=4, n_kv_heads=2, device=device)
    written = ~attend(step, config=config, validate=False).isnan()
    assert written.all(dim=1).tolist() == written.any(dim=1).tolist() == [True, False, False]


def test_queries_may_be_a_part_of_a_wider_tensor(device):
    step = make_step([4], [20], device=device)
    whole = attend(step)
    wide = torch.full((4, 9, 21), float("nan"), device=device)
    wide[:, 2:6, 1:17] = step.query
    step.query = wide[:, 2:6, 1:17]
    assert torch.equal(attend(step), whole)


def test_sequences_without_a_query_and_padding_tokens(device):
    step = make_step([2, 0, 3], [40, 17, 3], device=device)
    whole = attend(step, config=LOW)
    assert not whole.isnan().any()
    alone = attend(step.part([(0, 0, 2), (2, 0, 3)]), config=LOW)
    assert torch.equal(alone, whole)


@pytest.mark.parametrize(("mode", "window"), [("loop", None), ("parallel", None), ("parallel", 25)])
def test_a_token_has_the_same_bits_however_the_step_is_made(mode, window, device, monkeypatch):
    step = make_step([40, 3, 10], [40, 70, 10], n_heads=2, n_kv_heads=1, device=device)
    whole = attend(step, config=LOW, window=window)

    def same(rows, config, forced):
        monkeypatch.setattr(module, "_mode", lambda n, *_: "one" if n <= 1 else forced)
        part = attend(step.part(rows), config=config, window=window)
        starts = step.metadata.cu_seqlens_q.tolist()
        places = torch.cat([torch.arange(starts[i] + a, starts[i] + b) for i, a, b in rows])
        return torch.equal(part, whole[places.to(device)])

    assert same([(0, 0, 40), (1, 0, 3), (2, 0, 10)], TALL, mode)
    assert same([(2, 0, 10)], TALL, mode)  # alone and in one split
    assert same([(1, 0, 2), (0, 15, 37)], LOW, mode)  # a chunk of a prompt, another neighbour
    for last in (1, 32, 33, 40):  # decoded
        assert same([(0, last - 1, last)], LOW, mode)


class Noted:
    """A kernel whose launches are noted: grids with the constants."""

    def __init__(self, kernel, limit=None):
        self.kernel, self.limit, self.launches = kernel, limit, []

    def __getitem__(self, grid):
        def launch(*args, **constants):
            self.launches.append((grid, constants))
            return self.kernel[self.limit or grid](*args, **constants)

        return launch


@pytest.mark.parametrize(("mode", "window"), [("loop", None), ("parallel", None), ("parallel", 25)])
def test_sections_get_their_own_tiles_and_the_same_bits(mode, window, device, monkeypatch):
    """Decoding sequences, one of them with a draft, before chunks of prompts."""
    q_lens = [1, 1, 9, 1, 40, 33]
    step = make_step(q_lens, [70, 33, 40, 3, 70, 33], n_heads=4, n_kv_heads=2, device=device)
    whole = attend(step, config=LOW, window=window)
    monkeypatch.setattr(module, "configs_for", lambda *_: (LOW, TALL))
    monkeypatch.setattr(module, "_mode", lambda *_: mode)
    kernel = Noted(module.attend_kernel)
    monkeypatch.setattr(module, "attend_kernel", kernel)
    sections = ((4, 12, 9), (2, 73, 40))
    assert torch.equal(attend(step, sections=sections, window=window), whole)
    assert [constants["BLOCK_M"] for _, constants in kernel.launches] == [16, 64]
    n_blocks = [grid[0] // 2 for grid, _ in kernel.launches]
    assert n_blocks[0] == 12 * 2 // 16 + 4
    assert n_blocks[1] == 85 * 2 // 64 - 12 * 2 // 64 + 2


def test_a_launch_takes_the_tile_for_its_mean_rows(device, monkeypatch):
    """So one long draft does not give all of a step's decoding rows the tile for prompts."""
    monkeypatch.setattr(module, "configs_for", lambda *_: (LOW, TALL))
    for q_lens, expected in (([1, 1, 20, 1], 16), ([20, 8], 64), ([8], 16), ([9], 64)):
        kernel = Noted(attend_kernel)
        monkeypatch.setattr(module, "attend_kernel", kernel)
        attend(make_step(q_lens, [40] * len(q_lens), device=device))
        assert [constants["BLOCK_M"] for _, constants in kernel.launches] == [expected]


def test_one_tile_for_all_is_one_launch(device, monkeypatch):
    kernel = Noted(attend_kernel)
    monkeypatch.setattr(module, "attend_kernel", kernel)
    step = make_step([1, 40], [40, 40], device=device)
    attend(step, config=LOW, sections=((1, 1, 1), (1, 40, 40)))
    assert len(kernel.launches) == 1


@pytest.mark.parametrize("q_lens", [[1, 1], [24, 24]])
def test_programs_that_run_together_read_the_heads_of_the_same_keys(q_lens, device, monkeypatch):
    """The first ones, as many as there are key heads, are those of the same rows."""
    step = make_step(q_lens, [30, 30], n_heads=6, n_kv_heads=3, device=device)
    whole = attend(step, config=LOW)
    monkeypatch.setattr(module, "attend_kernel", Noted(attend_kernel, limit=(3, 1)))
    part = attend(step, config=LOW)
    n = min(q_lens[0], LOW.block_m // 2)
    assert torch.equal(part[:n], whole[:n])
    assert part[n:].isnan().all()


def test_another_split_gives_other_bits(device):
    """The test above would notice: sums that are cut elsewhere differ."""
    step = make_step([4], [200], device=device)
    other = AttentionConfig(16, 16, 48, 4, 1)
    assert not torch.equal(attend(step, config=LOW), attend(step, config=other))


@pytest.mark.parametrize("capability", [80, 89, 90, 100, 120])
@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_tiles_for_few_and_many_rows_differ_in_their_rows_alone(head_dim, capability):
    few, many = attention_configs(head_dim, torch.bfloat16, capability)
    assert (few.block_n, few.split) == (many.block_n, many.split)
    assert few.block_m * many.num_warps == many.block_m * few.num_warps
    assert few.split % few.block_n == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": torch.ones(3, 3, 16)}, r"query has shape \(3, 3, 16\)"),
        ({"query": torch.ones(3, 4, 16).half()}, "query is torch.float16"),
        ({"seq_lens": torch.ones(1)}, "seq_lens is torch.float32"),
        ({"cu_seqlens_q": torch.ones(3).int()}, r"cu_seqlens_q has shape \(3,\)"),
        ({"block_tables": torch.ones(2, 2).int()}, r"block_tables has shape \(2, 2\)"),
        ({"scale": 0.0}, "scale is 0.0"),
        ({"window": 0}, "window is 0"),
        ({"softcap": float("inf")}, "softcap is inf"),
        ({"max_seq_len": 2}, "max_seqlen_q is 3, max_seq_len 2"),
        ({"out": torch.ones(3, 60)}, r"out has shape \(3, 60\): expected \(3, 64\)"),
        ({"key_pages": torch.ones(2, 16, 2, 512)}, "value_pages has shape"),
        ({"query": torch.ones(3, 4, 16, device="meta")}, "on meta"),
    ],
)
def test_bad_arguments_are_named(change, message, device):
    step = make_step([3], [8], device=device)
    names = ("query", "key_pages", "value_pages", "cu_seqlens_q", "seq_lens", "block_tables")
    tensors = (step.query, step.key_pages, step.value_pages, *step.index)
    given = dict(zip(names, tensors, strict=True)) | step.longest | {"scale": 1.0} | change
    for name, value in given.items():
        if isinstance(value, torch.Tensor) and not value.is_meta:
            given[name] = value.to(device)
    with pytest.raises(ValueError, match=message):
        paged_attention(**given)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (((1, 3, 3),), r"sections is \(\(1, 3, 3\),\): there are 2 sequences and 5 tokens"),
        (((1, 3, 3), (1, 3, 3)), "there are 2 sequences and 5 tokens"),
        (((1, 3, 3), (1, 2, 4)), "max_seqlen_q is 3"),
        (((3, 3, 3), (-1, 2, 2)), "there are 2 sequences"),
        (((1, 2, 3), (1, 3, 3)), "section 0 has 2 tokens from 0 on, .* those from 0 to 3"),
        (((1, 3, 3), (1, 1, 3)), "section 1 has 1 tokens from 3 on, .* those from 3 to 5"),
        (((1, 3, 3), (1, 2, 1)), "section 1 is said to have 1 tokens at most, not 2"),
    ],
)
def test_wrong_sections_are_named(sections, message, device):
    step = make_step([3, 2], [8, 17], device=device)
    with pytest.raises(ValueError, match=message):
        attend(step, sections=sections)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("cu_seqlens_q", [0, 4, 3], "cu_seqlens_q falls from 4 to 3 at 2"),
        ("cu_seqlens_q", [0, 2, 6], "cu_seqlens_q runs from 0 to 6: there are 5"),
        ("cu_seqlens_q", [-1, 2, 5], "cu_seqlens_q runs from -1 to 5"),
        ("seq_lens", [8, -1], "seq_lens has -1 at 1"),
        ("seq_lens", [8, 49], r"seq_lens has 49 at 1: it must lie in \[0, 49\)"),
        ("seq_lens", [2, 17], "seq_lens has 2 at 0, cu_seqlens_q gives that sequence 3 tokens"),
        ("seq_lens", [8, 18], "max_seq_len is 17, but a sequence has 18"),
        ("cu_seqlens_q", [0, 1, 5], "max_seqlen_q is 3, but a sequence has 4"),
        ("block_tables", [[1, 0, 0], [0, 5, 0]], r"block_tables has 5 at 4: .* \[0, 5\)"),
        ("block_tables", [[-2, 0, 0], [0, 1, 0]], "block_tables has -2 at 0"),
    ],
)
def test_wrong_places_are_named(name, values, message, device):
    step = make_step([3, 2], [8, 17], device=device)
    names = ("cu_seqlens_q", "seq_lens", "block_tables")
    given = dict(zip(names, step.index, strict=True)) | step.longest | {"scale": 1.0}
    pages = (step.query, step.key_pages, step.value_pages)
    paged_attention(*pages, **given)  # page numbers behind a sequence's end may be anything
    given[name] = torch.tensor(values, dtype=torch.int32, device=device)
    with pytest.raises(ValueError, match=message):
        paged_attention(*pages, **given)
