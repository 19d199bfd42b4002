"""Writing into pages against torch's indexing."""

import pytest
import torch

pytest.importorskip("triton")

from flipfast_kernels.kv_cache import write_kv, write_kv_ref


@pytest.mark.parametrize(("heads", "dim", "page_size"), [(1, 8, 1), (3, 20, 16), (2, 33, 4)])
def test_writes_where_the_slots_say_and_nowhere_else(heads, dim, page_size, device):
    generator = torch.Generator().manual_seed(heads)
    n_tokens, n_pages = 7, 30 // page_size + 1
    both = torch.randn(n_tokens, 2 * heads + 1, dim + 2, generator=generator).to(device)
    key, value = both[:, :heads, :dim], both[:, heads : 2 * heads, 2:]
    slots = torch.randperm(n_pages * page_size, generator=generator)[:n_tokens].to(device)
    shape = (n_pages, page_size, heads, dim)
    pages, expected = (
        [torch.full(shape, 7.0, dtype=torch.float16, device=device) for _ in range(2)]
        for _ in range(2)
    )
    write_kv(key, value, *pages, slots)
    write_kv_ref(key, value, *expected, slots)
    assert torch.equal(pages[0], expected[0])
    assert torch.equal(pages[1], expected[1])
    assert (pages[0] == 7.0).sum() == pages[0].numel() - key.numel()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": torch.ones(3, 2, 8)}, r"key has shape \(3, 2, 8\): expected \(2, 2, 8\)"),
        ({"value": torch.ones(2, 2, 8).int()}, "value is torch.int32"),
        ({"key_pages": torch.ones(4, 3, 2, 8)}, r"key_pages has shape \(4, 3, 2, 8\)"),
        ({"value_pages": torch.ones(4, 4, 2, 8).half()}, "value_pages has dtype torch.float16"),
        ({"slot_mapping": torch.ones(2, dtype=torch.int32)}, "slot_mapping is torch.int32"),
        ({"slot_mapping": torch.arange(4)[::2]}, r"slot_mapping has strides \(2,\)"),
        ({"slot_mapping": torch.tensor([3, 16])}, r"slot_mapping has 16 at 1: .* \[0, 16\)"),
        ({"slot_mapping": torch.tensor([-1, 0])}, "slot_mapping has -1 at 0"),
        ({"value": torch.ones(2, 2, 8, device="meta")}, "value is on meta"),
    ],
)
def test_bad_arguments_are_named(change, message, device):
    given = {"key": torch.ones(2, 2, 8), "value": torch.ones(2, 2, 8)}
    given |= {"key_pages": torch.ones(4, 4, 2, 8), "value_pages": torch.ones(4, 4, 2, 8)}
    given |= {"slot_mapping": torch.arange(2)} | change
    here = {k: v if v.is_meta else v.to(device) for k, v in given.items()}
    with pytest.raises(ValueError, match=message):
        write_kv(**here)
