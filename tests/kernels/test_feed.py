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


def zeros(n, dtype=torch.int64):
    return torch.zeros(n, dtype=dtype)


@pytest.mark.parametrize(
    ("ids", "slots", "problem"),
    [
        (zeros(3, torch.int32), zeros(3), "input_ids is torch.int32"),
        (zeros(3), zeros(2), "fed_slots has shape"),
        (zeros(3), torch.tensor([0, 4, -1]), "has 4 at 1"),
        (zeros(3), zeros(6)[::2], "strides"),
    ],
)
def test_bad_arguments(ids, slots, problem, device):
    for _ in range(2):  # what has failed once is checked again
        with pytest.raises(ValueError, match=problem):
            feed_tokens(ids.to(device), slots.to(device), zeros(4).to(device))
