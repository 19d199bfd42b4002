"""The torch reference of the id overlap against collections.Counter."""

from collections import Counter

import pytest
import torch

from flipfast_kernels.overlap_f1 import overlap_f1_ref

LARGEST = torch.iinfo(torch.int64).max


def expected(predicted, referred):
    same = (Counter(predicted) & Counter(referred)).total()
    if same == 0:
        return 0, [0.0, 0.0, 0.0]
    precision, recall = same / len(predicted), same / len(referred)
    return same, [(2 * precision * recall) / (precision + recall), precision, recall]


def padded(rows, width, dtype, padding):
    ids = torch.full((len(rows), width), padding, dtype=dtype)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=dtype)
    return ids, torch.tensor([len(row) for row in rows], dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(("n", "width", "other"), [(1, 1, 1), (7, 33, 5), (257, 19, 64)])
def test_equals_counter(n, width, other, dtype):
    generator = torch.Generator().manual_seed(n)

    def rows(width):
        lens = torch.randint(width + 1, (n,), generator=generator).tolist()
        return [torch.randint(-3, 12, (k,), generator=generator).tolist() for k in lens]

    predicted, referred = rows(width), rows(other)
    # Padding that is a real id elsewhere: it must not count.
    counts, scores = overlap_f1_ref(
        *padded(predicted, width + 2, dtype, 5), *padded(referred, other, dtype, 5)
    )
    assert counts.dtype == torch.int32
    assert scores.dtype == torch.float64
    pairs = zip(predicted, referred, strict=True)
    assert list(zip(counts.tolist(), scores.tolist(), strict=True)) == [expected(*p) for p in pairs]


def test_the_largest_id_is_told_from_padding():
    predicted, referred = [[LARGEST, LARGEST, 3]], [[3, LARGEST]]
    counts, scores = overlap_f1_ref(
        *padded(predicted, 5, torch.int64, 0), *padded(referred, 4, torch.int64, LARGEST)
    )
    assert (counts.item(), scores[0].tolist()) == expected(predicted[0], referred[0])


def test_rows_may_be_empty_or_none():
    ids, lens = torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    counts, scores = overlap_f1_ref(ids, lens, ids, lens)
    assert counts.tolist() == [0, 0]
    assert scores.tolist() == [[0.0] * 3] * 2
    counts, scores = overlap_f1_ref(ids[:0], lens[:0], ids[:0], lens[:0])
    assert counts.shape == (0,)
    assert scores.shape == (0, 3)


def test_rows_need_not_be_contiguous():
    ids = torch.tensor([[1, 2], [2, 3], [2, 9]]).T
    lens = torch.tensor([3, 2])
    counts, _ = overlap_f1_ref(ids, lens, ids.flip(0).contiguous(), lens.flip(0))
    assert counts.tolist() == [expected([1, 2, 2], [2, 3])[0], expected([2, 3], [1, 2, 2])[0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.ones(2, 3)}, "prediction_ids is torch.float32"),
        ({1: torch.ones(3, dtype=torch.int64)}, r"prediction_lens has shape \(3,\)"),
        ({2: torch.ones(2, dtype=torch.int64)}, r"reference_ids has shape \(2,\)"),
        ({3: torch.tensor([1, 4])}, r"reference_lens \[1, 4\] must lie in \[0, 3\]"),
        ({2: torch.ones(2, 3, dtype=torch.int64, device="meta")}, "reference_ids is on meta"),
    ],
)
def test_bad_arguments_are_named(change, message):
    ids, lens = torch.ones(2, 3, dtype=torch.int64), torch.tensor([1, 2])
    arguments = [change.get(i, tensor) for i, tensor in enumerate((ids, lens, ids, lens))]
    with pytest.raises(ValueError, match=message):
        overlap_f1_ref(*arguments)
