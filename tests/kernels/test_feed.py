"""Feeding sampled tokens to the next step."""

import pytest
import torch

pytest.importorskip("triton")

from flipfast_kernels.feed import feed_tokens, feed_tokens_ref


@pytest.mark.parametrize("n", [0, 1, 7, 1024, 1500])
def test_equals_the_reference(n, device):
    generator = torch.Generator().manual_seed(n)
    ids = torch.randint(1000, (n,), generator=generator)
    slots = torch.randint(-3, 9, (n,), generator=generator)
    last = torch.randint(1000, 2000, (9,), generator=generator)
    expected = feed_tokens_ref(ids.clone(), slots, last)
    found = feed_tokens(ids.to(device), slots.to(device), last.to(device))
    assert found.tolist() == expected.tolist()
    if n > 100:
        assert 0 < (expected >= 1000).sum() < n


@pytest.mark.parametrize(
    ("ids", "slots", "last", "problem"),
    [
        (
            torch.zeros(3).int(),
            torch.zeros(3).long(),
            torch.zeros(4).long(),
            "input_ids is torch.i",
        ),
        (
            torch.zeros(3).long(),
            torch.zeros(2).long(),
            torch.zeros(4).long(),
            "fed_slots has shape",
        ),
        (torch.zeros(3).long(), torch.tensor([0, 4, -1]), torch.zeros(4).long(), "has 4 at 1"),
        (torch.zeros(3).long(), torch.zeros(6).long()[::2], torch.zeros(4).long(), "strides"),
    ],
)
def test_bad_arguments(ids, slots, last, problem, device):
    for _ in range(2):  # what has failed once is checked again
        with pytest.raises(ValueError, match=problem):
            feed_tokens(ids.to(device), slots.to(device), last.to(device))
