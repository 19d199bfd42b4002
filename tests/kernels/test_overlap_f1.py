"""The id overlap, kernels and torch reference, against collections.Counter."""

from collections import Counter
from itertools import product
from random import Random

import pytest
import torch

pytest.importorskip("triton")

from hypothesis import given, settings
from hypothesis import strategies as st

from flipfast_kernels import overlap_f1 as module
from flipfast_kernels.jit.overlap_sorted import _merging, _sorting
from flipfast_kernels.overlap_f1 import overlap_f1, overlap_f1_ref

INT32, INT64 = torch.iinfo(torch.int32), torch.iinfo(torch.int64)
FEW = [-3, -2, -1, *range(8)]
NAN_BITS, FIRST_WITHOUT_FLOAT = 0x7FC00000, 0x7F000000
# The first id without a key, what fills rows up, and ids with bits of both.
FIRST, FILL = 1 << 23, 1 << 24
KEYLESS = [0, 1, FIRST - 1, FIRST, FIRST + 1, FILL, FILL + 1, FIRST + FILL, 1 << 25, -FIRST, -1]
KEYED = [*range(8), FIRST - 2, FIRST - 1]
HARD32 = [INT32.min, INT32.max, NAN_BITS, FIRST_WITHOUT_FLOAT, FIRST_WITHOUT_FLOAT - 1, -1, 0, 1]
HARD64 = [*HARD32, INT64.min, INT64.max, 1 << 32, (1 << 32) + 1, -(1 << 32), 1 << 31]


def expected(predicted, referred):
    same = (Counter(predicted) & Counter(referred)).total()
    if same == 0:
        return 0, [0.0, 0.0, 0.0]
    precision, recall = same / len(predicted), same / len(referred)
    return same, [(2 * precision * recall) / (precision + recall), precision, recall]


def rows(seed, lens, values):
    random = Random(seed)
    return [random.choices(values, k=n) for n in lens]


def lens(seed, n, most):
    return [0, 1, most][:n] + Random(seed).choices(range(most + 1), k=max(n - 3, 0))


def ragged(rows, dtype, device, offset_dtype=torch.int64):
    """The rows between ids that are in no row, and that would match."""
    flat = [1, 0, *(x for row in rows for x in row), 1, 0]
    offsets = torch.tensor([2, *(len(row) for row in rows)]).cumsum(0)
    return torch.tensor(flat, dtype=dtype, device=device), offsets.to(device, offset_dtype)


def poisoned(shape, device):
    counts = torch.full(shape, -7, dtype=torch.int32, device=device)
    return counts, torch.full((*shape, 3), float("nan"), dtype=torch.float64, device=device)


def check(predicted, referred, device, mode="pairs", dtype=torch.int64, **options):
    """Compare both implementations with Counter; options go to the kernel's."""
    given = ragged(predicted, dtype, device), ragged(referred, dtype, device, torch.int32)
    n, m = len(predicted), len(referred)
    if mode == "matrix":
        shape, pairs = (n, m), [(p, r) for p in predicted for r in referred]
    else:
        shape, pairs = (n,), [(p, referred[i * m // n]) for i, p in enumerate(predicted)]
    wanted = [expected(*pair) for pair in pairs]
    out = poisoned(shape, device)
    result = overlap_f1(*given[0], *given[1], mode=mode, out=out, **options)
    assert result is out
    for counts, scores in (result, overlap_f1_ref(*given[0], *given[1], mode=mode)):
        assert counts.dtype == torch.int32
        assert scores.dtype == torch.float64
        assert counts.shape == shape
        assert counts.flatten().tolist() == [count for count, _ in wanted]
        assert scores.reshape(-1, 3).tolist() == [score for _, score in wanted]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(
    ("n", "most", "other"),
    [(1, 1, 1), (7, 33, 5), (7, 15, 16), (7, 31, 32), (7, 65, 63), (40, 64, 64), (257, 9, 17)],
)
def test_pairs_equal_counter(n, most, other, dtype, device):
    predicted, referred = rows(n, lens(1, n, most), KEYED), rows(most, lens(2, n, other), KEYED)
    check(predicted, referred, device, dtype=dtype)


@pytest.mark.parametrize(
    ("values", "dtype"), [(HARD32, torch.int32), (HARD64, torch.int64), ([1 << 40], torch.int64)]
)
@pytest.mark.parametrize("most", [33, 70])
def test_ids_without_a_float_count_too(most, values, dtype, device):
    predicted, referred = rows(3, lens(3, 9, most), values), rows(4, lens(4, 9, most), values)
    check(predicted, referred, device, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("most", [16, pytest.param(64, marks=pytest.mark.slow)])
def test_ids_without_a_key_count_too(most, dtype, device):
    for seed, values in enumerate((KEYLESS, KEYLESS[:4], KEYLESS[3:7])):
        predicted, referred = (rows(s, lens(s, 9, most), values) for s in (seed, seed + 9))
        check(predicted, referred, device, dtype=dtype)


@pytest.mark.parametrize("values", [[0, 1 << 32], [5, 5 + (1 << 24 << 32)], [FIRST, INT64.min]])
def test_ids_with_equal_low_bits_differ(values, device):
    check([values, values[:1]], [values[:1] * 2, values[1:]], device)


@pytest.mark.parametrize("n", [2, 4, 8, 16, 32, 64, 128])
def test_merging_puts_two_rows_in_order(n):
    """All rows of zeros and ones: a fixed order of comparisons that sorts these sorts anything."""
    for ones in product(range(n // 2 + 1), repeat=2):
        numbers = [bit for k in ones for bit in [0] * (n // 2 - k) + [1] * k]
        assert in_order(numbers, _merging(n)) == sorted(numbers)


def in_order(numbers, pairs):
    for i, j in pairs:
        numbers[i], numbers[j] = sorted((numbers[i], numbers[j]))
    return numbers


def test_sorting_puts_rows_in_order():
    for numbers in product((0, 1), repeat=16):
        assert in_order([*numbers], _sorting(16)) == sorted(numbers)


def row(*some):
    return st.lists(st.sampled_from([*some]) | st.integers(0, FIRST - 1), max_size=16)


ANY_PAIRS = [st.tuples(row(*some), row(*some)) for some in (KEYED, [*range(4), *KEYLESS])]


@pytest.mark.slow
@settings(max_examples=25)
@given(st.one_of(st.lists(pair, min_size=1, max_size=40) for pair in ANY_PAIRS))
def test_any_pairs_equal_counter(pairs):
    predicted, referred = ([pair[side] for pair in pairs] for side in (0, 1))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    check(predicted, referred, device, dtype=torch.int64)


@pytest.mark.parametrize(("m", "each", "most"), [(1, 7, 20), (5, 3, 20), (34, 2, 20), (2, 3, 100)])
def test_a_reference_may_have_many_predictions(m, each, most, device):
    referred = rows(5, lens(5, m, most), range(30))
    check(rows(6, lens(6, m * each, most), range(30)), referred, device)


@pytest.mark.slow
def test_programs_take_several_predictions(monkeypatch, device):
    monkeypatch.setattr(module, "device_facts", lambda _: (90, 1))
    predicted, referred = rows(7, lens(7, 33 * 9, 12), FEW), rows(8, lens(8, 33, 12), FEW)
    check(predicted, referred, device)
    check(predicted[:9], referred, device, "matrix")


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m", "most"), [(3, 35, 16), (9, 2, 64), (3, 2, 70)])
def test_matrix_equals_counter(n, m, most, device):
    predicted, referred = rows(9, lens(9, n, most), FEW), rows(10, lens(10, m, most), FEW)
    check(predicted, referred, device, "matrix")


@pytest.mark.slow
@pytest.mark.parametrize(("most", "other"), [(1023, 257), (33, 1030), (65, 1), (3, 200)])
def test_long_rows_beside_short_ones(most, other, device):
    predicted = rows(11, [most, 5, 0, 64], range(200))
    referred = rows(12, [other, 64, other // 2, 3], range(200))
    check(predicted, referred, device)


def test_rows_of_many_thousands_are_sorted(device, monkeypatch):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(module, "_launch_short", refuse)
    predicted, referred = rows(13, [16384, 3, 0], range(9000)), rows(14, [5000, 9, 4], range(9000))
    check(predicted, referred, device)
    check(predicted[:2], referred, device, "matrix")


@pytest.mark.slow
def test_all_copies_of_one_id(device):
    check([[5] * 64, [5] * 63, [5] * 300, [5]], [[5] * 63, [5] * 64, [5] * 299, [5] * 290], device)


@pytest.mark.slow
def test_a_pair_has_the_same_bits_in_every_company(device):
    predicted, referred = rows(15, lens(15, 40, 40), FEW), rows(16, lens(16, 40, 40), FEW)
    whole = overlap_f1(
        *ragged(predicted, torch.int64, device), *ragged(referred, torch.int64, device)
    )
    for i in (2, 5, 39):
        alone = overlap_f1(
            *ragged(predicted[i : i + 1], torch.int32, device),
            *ragged(referred[i : i + 1], torch.int64, device),
        )
        assert torch.equal(alone[0][0], whole[0][i])
        assert torch.equal(alone[1][0], whole[1][i])


@pytest.mark.parametrize("mode", ["pairs", "matrix"])
def test_there_may_be_no_rows_or_no_ids(mode, device):
    check([[], []], [[], []], device, mode)
    none = torch.zeros(0, dtype=torch.int64, device=device)
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    for function in (overlap_f1, overlap_f1_ref):
        counts, scores = function(none, zero, none, zero, mode=mode)
        assert counts.numel() == 0
        assert scores.shape == (*counts.shape, 3)
        counts, _ = function(none, zero.repeat(3), none, zero.repeat(3), mode=mode)
        assert not counts.any()


@pytest.mark.parametrize("max_len", [20, 64, 65, 4096])
def test_a_bound_of_the_lengths_may_be_given(max_len, device):
    predicted, referred = rows(17, lens(17, 5, 20), FEW), rows(18, lens(18, 5, 20), FEW)
    check(predicted, referred, device, max_len=max_len, validate=False)


def test_nothing_is_read_where_nothing_is_validated(device, monkeypatch):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(module, "check_offsets", refuse)
    monkeypatch.setattr(torch.Tensor, "diff", refuse)
    ids, offsets = ragged([[1, 2]], torch.int64, device)
    counts, _ = overlap_f1(ids, offsets, ids, offsets, max_len=2, validate=False)
    assert counts.tolist() == [2]


IDS, OFFSETS = torch.ones(6, dtype=torch.int64), torch.tensor([0, 2, 6])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction_ids": torch.ones(6)}, "prediction_ids is torch.float32"),
        ({"reference_ids": torch.ones(2, 3).long()}, r"reference_ids has shape \(2, 3\)"),
        ({"reference_ids": torch.ones(12).long()[::2]}, r"reference_ids has strides \(2,\)"),
        ({"reference_ids": IDS.to("meta")}, "reference_ids is on meta, prediction_ids on"),
        ({"prediction_offsets": IDS[:0]}, r"prediction_offsets has shape \(0,\)"),
        ({"prediction_offsets": torch.tensor([0, 2, 4, 6])}, "3 predictions for 2 references"),
        ({"reference_offsets": torch.tensor([0])}, "2 predictions for 0 references"),
        ({"prediction_offsets": torch.tensor([0, 3, 2])}, "prediction_offsets falls from 3 to 2"),
        ({"reference_offsets": torch.tensor([0, 3, 7])}, "runs from 0 to 7: there are 6 entries"),
        ({"reference_offsets": torch.tensor([-1, 3, 6])}, "runs from -1 to 6"),
        ({"max_len": 3}, "prediction_offsets has a row of 4 ids: max_len is 3"),
        ({"mode": "all"}, "mode is 'all'"),
        ({"out": (IDS, IDS)}, "counts is torch.int64: expected torch.int32"),
        ({"out": (IDS[:2].int(), torch.ones(2, 4).double())}, r"scores has shape \(2, 4\)"),
    ],
)
def test_bad_arguments_are_named(change, message, device):
    given = {
        "prediction_ids": IDS,
        "prediction_offsets": OFFSETS,
        "reference_ids": IDS,
        "reference_offsets": OFFSETS,
    } | change
    here = {k: v.to(device) if hasattr(v, "to") and not v.is_meta else v for k, v in given.items()}
    with pytest.raises(ValueError, match=message):
        overlap_f1(**here)
