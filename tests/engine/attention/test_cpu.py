"""The CPU attention against a float64 reference, at every level of instructions of this CPU."""

import math
from dataclasses import dataclass

import psutil
import pytest
import torch
from torch.nn import functional

import flipfast._cpu as _cpu
from flipfast.engine.attention.base import AttentionMetadata, AttentionShape
from flipfast.engine.attention.cpu import Backend
from flipfast.errors import ConfigError

F32, BF16 = torch.float32, torch.bfloat16
PAGE = Backend.page_size


@pytest.fixture(params=_cpu.isas(), autouse=True)
def isa(request):
    before = _cpu.isa()
    _cpu.set_isa(request.param)
    _cpu.set_threads(2)
    yield request.param
    _cpu.set_isa(before)
    _cpu.set_threads(torch.get_num_threads())


def shape(n_heads=4, n_kv_heads=2, head_dim=64, dtype=F32):
    return AttentionShape(n_heads, n_kv_heads, head_dim, dtype, torch.device("cpu"))


@dataclass
class Sequence:
    """Queries, keys and values of a whole sequence, (tokens, heads, head_dim)."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor

    @classmethod
    def random(cls, s, length, seed):
        g = torch.Generator().manual_seed(seed)
        sizes = (s.n_heads, s.n_kv_heads, s.n_kv_heads)
        return cls(*(torch.randn(length, n, s.head_dim, generator=g) for n in sizes))


def run(backend, sequences, new, **options):
    """The last new[i] tokens of each sequence in one step, the ones before it written first.

    Pages are poisoned with NaN and handed out in a scrambled order.
    """
    options = {"scale": 0.125, "window": None, "softcap": None} | options
    lengths = [len(s.k) for s in sequences]
    counts = [-(-n // PAGE) for n in lengths]
    cache = backend.allocate(sum(counts) + 1)
    for pages in cache:
        pages.fill_(float("nan"))
    order = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(1)) + 1
    tables = torch.full((len(sequences), max(counts) + 1), 10**9, dtype=torch.int32)
    slots = []
    for i, pages in enumerate(order.split(counts)):
        tables[i, : len(pages)] = pages
        position = torch.arange(lengths[i])
        slots.append(pages[position // PAGE] * PAGE + position % PAGE)
        old = lengths[i] - new[i]
        backend.write(sequences[i].k[:old], sequences[i].v[:old], cache, slots[i][:old])
    starts = torch.tensor([0, *new]).cumsum(0).int()
    step = AttentionMetadata(
        starts,
        torch.tensor(lengths).int(),
        tables,
        torch.cat([slot[len(slot) - n :] for slot, n in zip(slots, new, strict=True)]),
        max(new),
        max(lengths),
    )
    tails = [
        torch.cat([getattr(s, part)[len(s.k) - n :] for s, n in zip(sequences, new, strict=True)])
        for part in "qkv"
    ]
    backend.write(tails[1], tails[2], cache, step.slot_mapping)
    out = torch.full((len(tails[0]), tails[0][0].numel()), float("nan"))
    assert backend.attend(tails[0], cache, step, out, **options) is out
    return out.split(new)


def reference(s, dtype, scale=0.125, window=None, softcap=None, new=None):
    """All tokens of a sequence, or the last ones, in float64, operands rounded to dtype."""
    q, k, v = (x.to(dtype).double().transpose(0, 1) for x in (s.q, s.k, s.v))
    k, v = (x.repeat_interleave(len(q) // len(x), 0) for x in (k, v))
    first = 0 if new is None else len(s.q) - new
    scores = scale * q[:, first:] @ k.transpose(1, 2)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    position = torch.arange(len(s.q))
    distance = position[first:, None] - position
    hidden = (distance < 0) | (distance >= (window or len(s.q)))
    weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
    return (weights @ v).transpose(0, 1).flatten(1)


def sdpa(s, dtype, scale=0.125):
    q, k, v = (x.to(dtype).transpose(0, 1)[None] for x in (s.q, s.k, s.v))
    out = functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, scale=scale, enable_gqa=True
    )
    return out[0].transpose(0, 1).flatten(1)


def rounded(sequence, dtype):
    """With operands that both kinds of pages hold, so that errors are those of the sums alone."""
    return Sequence(*(x.to(dtype).float() for x in (sequence.q, sequence.k, sequence.v)))


def errors(s, sequence, new):
    """The largest error of the last `new` tokens, and what SDPA's and a rounding come to."""
    expected = reference(sequence, s.dtype, new=new)
    (result,) = run(Backend(s), [sequence], [new])
    theirs = sdpa(sequence, s.dtype)[-new:]
    error, allowed = ((x.double() - expected).abs().max() for x in (result, theirs))
    return error, allowed + expected.abs().max() * 2**-24


@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
@pytest.mark.parametrize("head_dim", [8, 16, 64, 80, 128, 256])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (7, 1)], ids=str)
def test_error_is_at_most_that_of_sdpa_and_a_rounding(dtype, head_dim, heads):
    s = shape(*heads, head_dim, dtype)
    for length in (1, 31, 65, 150, 300):
        sequence = rounded(Sequence.random(s, length, seed=length), dtype)
        error, allowed = errors(s, sequence, length)
        assert error <= allowed


@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
@pytest.mark.parametrize("head_dim", [64, 256])
def test_error_does_not_grow_with_the_length(dtype, head_dim):
    s = shape(2, 1, head_dim, dtype)
    sequence = rounded(Sequence.random(s, 4096, seed=0), dtype)
    sequence.v += 1  # outputs that do not average out show the error of the weights' sum
    error, allowed = errors(s, rounded(sequence, dtype), 64)
    assert error <= allowed


@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"window": 1},
        {"window": 33},
        {"window": 150},
        {"softcap": 3.0},
        {"window": 64, "softcap": 20.0},
    ],
    ids=str,
)
def test_windows_and_caps(dtype, options):
    s = shape(6, 2, 32, dtype)
    sequences = [Sequence.random(s, length, seed=length) for length in (5, 64, 290)]
    for sequence in sequences:
        sequence.q = (sequence.q * 4).bfloat16().float()
    results = run(Backend(s), sequences, [5, 64, 290], **options)
    for sequence, result in zip(sequences, results, strict=True):
        expected = reference(sequence, dtype, **options)
        rtol = 1e-5 if dtype is F32 else 1e-2
        torch.testing.assert_close(result.double(), expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
@pytest.mark.parametrize("options", [{}, {"window": 70, "softcap": 5.0}], ids=str)
@pytest.mark.parametrize("heads", [(2, 2), (4, 1)], ids=str)
def test_batch_mates_and_chunks_do_not_matter(dtype, options, heads):
    s = shape(*heads, 40, dtype)
    backend = Backend(s)
    lengths = [1, 17, 64, 129, 271, 400]
    sequences = [Sequence.random(s, length, seed=length) for length in lengths]
    whole = [run(backend, [x], [len(x.k)], **options)[0] for x in sequences]
    together = run(backend, sequences, lengths, **options)
    assert all(torch.equal(*pair) for pair in zip(whole, together, strict=True))
    for new in ([1] * 6, [1, 2, 3, 40, 100, 1], [1, 17, 1, 33, 7, 215]):
        parts = run(backend, sequences[::-1], new[::-1], **options)[::-1]
        for part, everything in zip(parts, whole, strict=True):
            assert torch.equal(part, everything[len(everything) - len(part) :])


@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_every_cut_of_a_sequence(dtype):
    s = shape(3, 1, 16, dtype)
    backend = Backend(s)
    sequence = Sequence.random(s, 140, seed=0)
    (whole,) = run(backend, [sequence], [140])
    for end in range(1, 141, 3):
        head = Sequence(sequence.q[:end], sequence.k[:end], sequence.v[:end])
        (row,) = run(backend, [head], [1])
        assert torch.equal(row[0], whole[end - 1])


@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_threads_do_not_matter(dtype):
    s = shape(4, 2, 64, dtype)
    sequences = [Sequence.random(s, length, seed=length) for length in (90, 300)]
    results = []
    for threads in (1, 2, 3):
        _cpu.set_threads(threads)
        results.append(torch.cat(run(Backend(s), sequences, [90, 300])))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_long_sequence():
    s = shape(2, 1, 32)
    sequence = Sequence.random(s, 16500, seed=0)
    (result,) = run(Backend(s), [sequence], [3])
    q = sequence.q[-3:].double()
    for i in range(3):
        end = 16498 + i
        scores = 0.125 * torch.einsum("hd,kd->hk", q[i], sequence.k[:end, 0].double())
        expected = (scores.softmax(-1) @ sequence.v[:end, 0].double()).flatten()
        torch.testing.assert_close(result[i].double(), expected, rtol=1e-5, atol=1e-6)


def test_large_scores_do_not_overflow():
    s = shape(1, 1, 8)
    sequence = Sequence.random(s, 200, seed=0)
    sequence.q *= 1e3
    (result,) = run(Backend(s), [sequence], [200])
    torch.testing.assert_close(result.double(), reference(sequence, F32), rtol=1e-3, atol=1e-3)


def test_a_broken_key_breaks_the_rows_that_see_it_alone():
    s = shape(2, 1, 16)
    sequence = Sequence.random(s, 100, seed=0)
    sequence.k[60] = float("nan")
    (result,) = run(Backend(s), [sequence], [100])
    assert result[60:].isnan().all()
    assert not result[:60].isnan().any()


@pytest.mark.parametrize("dtype", [BF16, torch.float16, torch.float64], ids=str)
def test_other_dtypes_and_strides_are_taken(dtype):
    s = shape(4, 2, 32)
    backend = Backend(s)
    sequence = Sequence.random(s, 50, seed=0)
    rounded = Sequence(*(x.to(dtype).float() for x in (sequence.q, sequence.k, sequence.v)))
    (expected,) = run(backend, [rounded], [50])
    heads = torch.cat([rounded.q, rounded.k, rounded.v], 1).to(dtype)
    strided = Sequence(*heads.split([4, 2, 2], 1))
    (result,) = run(backend, [strided], [50])
    assert torch.equal(result, expected)


def attended_in_page(backend, cache, query, page, length):
    """The last query of a sequence that lies in one page."""
    index = [torch.tensor(values).int() for values in ([0, 1], [length], [[page]])]
    step = AttentionMetadata(*index, torch.tensor([page * PAGE + length - 1]), 1, length)
    out = torch.empty(1, 4 * 64)
    options = {"scale": 0.125, "window": None, "softcap": None}
    return backend.attend(query[-1:], cache, step, out, **options)


@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_a_copied_page_is_read_alike(dtype):
    backend = Backend(shape(dtype=dtype))
    cache = backend.allocate(6)
    for pages in cache:
        pages.fill_(float("nan"))
    sequences = [Sequence.random(shape(), 20, seed=seed) for seed in range(2)]
    for page, s in zip((1, 4), sequences, strict=True):
        backend.write(s.k, s.v, cache, page * PAGE + torch.arange(20))
    expected = [
        attended_in_page(backend, cache, sequences[k].q, page, 20) for page, k in [(1, 0), (4, 1)]
    ]
    # Page 4 is read before it is written to.
    backend.copy_pages(cache, torch.tensor([1, 4, 1]), torch.tensor([4, 2, 5]))
    for page, k in [(1, 0), (4, 0), (5, 0), (2, 1)]:
        result = attended_in_page(backend, cache, sequences[k].q, page, 20)
        assert torch.equal(result, expected[k])


def test_page_bytes_are_those_of_the_cache():
    for dtype in (F32, BF16):
        for head_dim in (8, 80, 128):
            backend = Backend(shape(4, 2, head_dim, dtype))
            assert sum(pages.nbytes for pages in backend.allocate(3)) == 3 * backend.page_bytes()


def test_shapes_that_cannot_be_served_are_named():
    with pytest.raises(ConfigError, match="float16"):
        Backend(shape(dtype=torch.float16))
    with pytest.raises(ConfigError, match="not 20"):
        Backend(shape(head_dim=20))
    with pytest.raises(ConfigError, match="5 query heads"):
        Backend(shape(5, 2))


def test_wrong_arguments_are_named():
    s = shape(1, 1, 8)
    backend = Backend(s)
    cache = backend.allocate(2)
    q, out, slots = torch.zeros(1, 1, 8), torch.zeros(1, 8), torch.tensor([64])
    with pytest.raises(ValueError, match="slot 64 is not within 0 to 63"):
        backend.write(q, q, cache, slots)
    options = {"scale": 1.0, "window": None, "softcap": None}

    def attend(length=1, table=(1,), starts=(0, 1), query=q, result=out, **more):
        tensors = (torch.tensor(x, dtype=torch.int32) for x in (starts, [length], [table]))
        metadata = AttentionMetadata(*tensors, slots, 1, length)
        return backend.attend(query, cache, metadata, result, **options | more)

    attend()
    with pytest.raises(ValueError, match="sequence 0 has page 2 of a cache of 2"):
        attend(table=(2,))
    with pytest.raises(ValueError, match="needs 2 pages"):
        attend(length=33)
    with pytest.raises(ValueError, match="1 tokens in the step and a length of 0"):
        attend(length=0)
    with pytest.raises(ValueError, match="from 0 to 2"):
        attend(starts=(0, 2))
    with pytest.raises(ValueError, match="not 0"):
        attend(window=0)
    with pytest.raises(ValueError, match=r"\(1, 2, 8\)"):
        attend(query=torch.zeros(1, 2, 8))
    with pytest.raises(ValueError, match="out must be"):
        attend(result=torch.zeros(2, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pages_take_memory_as_they_are_written(dtype):
    before = psutil.Process().memory_info().rss
    keys, values = Backend(shape(dtype=dtype)).allocate(20_000)
    n_bytes = keys.nbytes + values.nbytes
    assert psutil.Process().memory_info().rss - before < n_bytes / 10
    assert keys.data_ptr() % 64 == values.data_ptr() % 64 == 0
    assert not keys[::5000].any()
    assert not values[::5000].any()
