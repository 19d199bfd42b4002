"""The acceptance of drafted tokens against decoding one token after the other."""

from itertools import pairwise

import pytest
import torch

pytest.importorskip("triton")

from flipfast_kernels.acceptance import (
    BAD_LOGITS,
    BUDGET,
    END_TOKEN,
    RUNS,
    Acceptance,
    accept_tokens,
    accept_tokens_ref,
)


def ints(values, device, dtype=torch.int64):
    return torch.tensor(values, dtype=dtype, device=device)


def poisoned(n, width, device):
    return Acceptance(
        ints([-7] * n, device, torch.int32),
        ints([[-7] * width] * n, device).view(n, width),
        ints([-7] * n, device),
        ints([-7] * n, device, torch.int32),
    )


def one(chosen, drafts, device, **options):
    """A sequence alone: tokens, next token and stop."""
    out = accept_tokens(
        ints(chosen, device),
        ints([999, *drafts], device),
        ints([0, len(chosen)], device, torch.int32),
        max_positions=len(chosen),
        out=poisoned(1, len(chosen), device),
        **options,
    )
    n = out.n_emitted.item()
    assert out.tokens[0, n:].tolist() == [-1] * (len(chosen) - n)
    return out.tokens[0, :n].tolist(), out.next_token.item(), out.stop.item()


@pytest.mark.parametrize(
    ("chosen", "drafts", "budget", "expected"),
    [
        ([5], [], 9, ([5], 5, RUNS)),
        ([5, 6, 7], [5, 6], 9, ([5, 6, 7], 7, RUNS)),
        ([5, 6, 7], [5, 8], 9, ([5, 6], 6, RUNS)),
        ([5, 6, 7], [4, 6], 9, ([5], 5, RUNS)),
        ([0, 0], [0], 9, ([0, 0], 0, RUNS)),
        # An end token: as a draft, as the token behind them, behind a rejection.
        ([5, 1, 7], [5, 1], 9, ([5, 1], 1, END_TOKEN)),
        ([5, 6, 2], [5, 6], 9, ([5, 6, 2], 2, END_TOKEN)),
        ([5, 1, 7], [4, 1], 9, ([5], 5, RUNS)),
        ([2, 1], [2], 9, ([2], 2, END_TOKEN)),
        # The budget; an end token in its last place says more than it does.
        ([5, 6, 7], [5, 6], 3, ([5, 6, 7], 7, BUDGET)),
        ([5, 6, 7], [5, 6], 2, ([5, 6], 6, BUDGET)),
        ([5, 1, 7], [5, 1], 2, ([5, 1], 1, END_TOKEN)),
        ([5, 6, 1], [5, 6], 2, ([5, 6], 6, BUDGET)),
        ([5], [], 0, ([], -1, BUDGET)),
        ([5], [], -3, ([], -1, BUDGET)),
        ([1], [], 0, ([], -1, BUDGET)),
        # Logits that are not finite, before and behind the end of the row.
        ([-1], [], 9, ([], -1, BAD_LOGITS)),
        ([5, -1, 7], [5, 6], 9, ([5], 5, BAD_LOGITS)),
        ([5, -1, 7], [5, -1], 9, ([5], 5, BAD_LOGITS)),
        ([5, -1, 7], [4, 6], 9, ([5], 5, RUNS)),
        ([1, -1], [1], 9, ([1], 1, END_TOKEN)),
        ([5, -1], [5], 1, ([5], 5, BUDGET)),
        ([5, -1], [5], 2, ([5], 5, BAD_LOGITS)),
        ([-1], [], 0, ([], -1, BUDGET)),
    ],
)
def test_small_cases(chosen, drafts, budget, expected, device):
    options = {"end_ids": ints([1, 2], device), "budgets": ints([budget], device, torch.int32)}
    assert one(chosen, drafts, device, **options) == expected


def test_no_end_tokens_and_no_budget(device):
    assert one([1, 6, 7], [1, 6], device) == ([1, 6, 7], 7, RUNS)
    assert one([1, 6], [1], device, end_ids=ints([], device)) == ([1, 6], 6, RUNS)


def ragged(n, longest, device, seed, *, empty=False):
    """Sequences of few different tokens, so that drafts are right now and then."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high, size, low=0):
        return torch.randint(low, high, size, generator=generator)

    lens = draw(longest + 1, (n,), 0 if empty else 1)
    lens[n // 2] = longest
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), lens.cumsum(0)])
    total = int(starts[-1])
    right = torch.rand(total, generator=generator) < 0.93
    fed = draw(40, (total,))
    chosen = torch.where(right, fed.roll(-1), draw(40, (total,), -1))
    positions = (chosen.to(device), fed.to(device), starts.int().to(device))
    options = {
        "max_positions": longest,
        "end_ids": ints([3, 17], device),
        "budgets": draw(longest + 2, (n,)).int().to(device),
        "slots": torch.randperm(n + 5, generator=generator)[:n].to(device),
    }
    chances = torch.rand(2, total, generator=generator, dtype=torch.float64).to(device)
    chances[0] = chances[0].sqrt().sqrt()
    return positions, options, {"draft_probs": chances[0].float(), "uniforms": chances[1]}


@pytest.mark.parametrize(
    ("n", "longest", "sampled"),
    [
        (1, 1, False),
        (1, 1, True),
        (7, 33, False),
        (7, 32, True),
        (5, 65, False),
        (5, 64, True),
        (9, 31, False),
        (257, 5, True),
    ],
)
def test_equals_the_reference(n, longest, sampled, device):
    positions, options, chances = ragged(n, longest, device, seed=n, empty=True)
    options |= chances if sampled else {}
    last = torch.full((n + 5,), -7, device=device)
    expected_last = last.clone()
    found = accept_tokens(*positions, **options, last_token=last, out=poisoned(n, longest, device))
    expected = accept_tokens_ref(*positions, **options, last_token=expected_last)
    for name, values in vars(expected).items():
        assert torch.equal(getattr(found, name), values), name
    assert torch.equal(last, expected_last)


def test_a_sequence_has_the_same_result_alone(device):
    (chosen, fed, starts), options, _ = ragged(7, 33, device, seed=3)
    del options["slots"]
    whole = accept_tokens(chosen, fed, starts, **options)
    for i, (start, end) in enumerate(pairwise(starts.tolist())):
        part = options | {"budgets": options["budgets"][i : i + 1]}
        alone = accept_tokens(
            chosen[start:end], fed[start:end], ints([0, end - start], device, torch.int32), **part
        )
        for name, values in vars(alone).items():
            assert torch.equal(values, getattr(whole, name)[i : i + 1]), name


def test_the_reference_is_decoding_one_token_after_the_other(device):
    """A model that knows its next token: drafts change how fast it goes, not what comes out."""
    end = 11

    def after(token):
        return (token * 7 + 3) % 13

    plain = [5]
    while plain[-1] != end:
        plain.append(after(plain[-1]))
    drafted, n_passes, width = [5], 0, 4
    while drafted[-1] != end:
        n_passes += 1
        fed = [drafted[-1]]
        while len(fed) < width:  # the third guess is wrong
            fed.append(after(fed[-1]) if len(fed) != 3 else 12)
        out = accept_tokens(
            ints([after(token) for token in fed], device),
            ints(fed, device),
            ints([0, width], device, torch.int32),
            max_positions=width,
            end_ids=ints([end], device),
        )
        drafted += out.tokens[0, : out.n_emitted].tolist()
    assert drafted == plain
    assert n_passes == -(-(len(plain) - 1) // 3)


def test_plain_decode_keeps_the_books(device):
    chosen = ints([4, -1, 9], device)
    last = ints([70, 71, 72, 73], device)
    output = torch.full((8,), -7, dtype=torch.int32, device=device)
    addresses = [output[2:].data_ptr(), output[4:].data_ptr(), 0]
    books = {"slots": ints([3, 0, 1], device), "last_token": last}
    found = accept_tokens(chosen, **books, output_addresses=ints(addresses, device))
    assert found.tokens.tolist() == [[4], [-1], [9]]
    assert found.next_token.tolist() == [4, -1, 9]
    assert found.stop.tolist() == [RUNS, BAD_LOGITS, RUNS]
    assert last.tolist() == [0, 9, 72, 4]
    assert output.tolist() == [-7, -7, 4, -7, -7, -7, -7, -7]


def test_emitted_tokens_go_to_their_addresses(device):
    (chosen, fed, starts), options, _ = ragged(7, 33, device, seed=5)
    del options["slots"]
    rows = torch.full((7, 40), -7, dtype=torch.int32, device=device)
    addresses = [row[3:].data_ptr() for row in rows]
    addresses[2] = 0
    out = accept_tokens(chosen, fed, starts, output_addresses=ints(addresses, device), **options)
    assert out.n_emitted[2] > 0
    for i, n in enumerate(out.n_emitted.tolist()):
        tokens = [] if i == 2 else out.tokens[i, :n].tolist()
        assert rows[i].tolist() == [-7] * 3 + tokens + [-7] * (37 - len(tokens))


def test_no_sequences(device):
    none = torch.empty(0, dtype=torch.int64, device=device)
    assert accept_tokens(none).tokens.shape == (0, 1)
    out = accept_tokens(none, none, ints([0], device, torch.int32), max_positions=4)
    assert out.tokens.shape == (0, 4)


def test_a_certain_draft_is_kept_and_an_impossible_one_is_not(device):
    nearly = torch.full((3,), 1 - 2**-53, dtype=torch.float64, device=device)

    def kept(probs, uniforms):
        probs = torch.tensor(probs, device=device)
        return one([5, 6, 7], [8, 9], device, draft_probs=probs, uniforms=uniforms)

    assert kept([1.0, 1.0, float("nan")], nearly) == ([8, 9, 7], 7, RUNS)
    assert kept([1.0, 0.0, 1.0], 0 * nearly) == ([8, 6], 6, RUNS)
    assert kept([float("nan"), 1.0, 1.0], 0 * nearly) == ([5], 5, RUNS)
    chances = {"draft_probs": torch.ones(2, device=device), "uniforms": 0 * nearly[:2]}
    assert one([5, 6], [-1], device, **chances) == ([5], 5, RUNS)  # -1 stands for no draft


MODEL = torch.tensor(  # of the next of five tokens, given the last
    [
        [0.50, 0.20, 0.15, 0.10, 0.05],
        [0.05, 0.60, 0.05, 0.10, 0.20],
        [0.25, 0.25, 0.00, 0.25, 0.25],
        [0.10, 0.10, 0.10, 0.65, 0.05],
        [0.30, 0.05, 0.40, 0.15, 0.10],
    ],
    dtype=torch.float64,
)


def draws(probs, generator):
    uniforms = torch.rand(len(probs), 1, generator=generator, dtype=torch.float64)
    return (probs.cumsum(1) < uniforms * probs.sum(1, keepdim=True)).sum(1)


@pytest.mark.slow
def test_rejection_leaves_the_distribution_as_it_is(device):
    """Chi-square of pairs of tokens from a verification of two drafts, and one plain step."""
    n = 3000
    generator = torch.Generator().manual_seed(11)
    fed = torch.tensor([0, 1, 4]).repeat(n, 1)  # the drafts are 1 and then 4
    model = MODEL[fed]
    probs = torch.zeros(n, 3)
    probs[:, :2] = model[:, :2].gather(2, fed[:, 1:, None])[..., 0]
    model[:, :2].scatter_(2, fed[:, 1:, None], 0.0)
    chosen = draws(model.view(-1, 5), generator)
    uniforms = torch.rand(3 * n, generator=generator, dtype=torch.float64)

    def verify(accept, n, device):
        rows, positions = slice(n), slice(3 * n)
        return accept(
            chosen[positions].to(device),
            fed[rows].reshape(-1).to(device),
            (torch.arange(n + 1, dtype=torch.int32) * 3).to(device),
            max_positions=3,
            draft_probs=probs[rows].reshape(-1).to(device),
            uniforms=uniforms[positions].to(device),
        ).tokens.cpu()

    tokens = verify(accept_tokens_ref, n, "cpu")
    here = n if device.type == "cuda" else 100  # the interpreter takes its time
    assert torch.equal(verify(accept_tokens, here, device), tokens[:here])
    short = tokens[:, 1] < 0
    assert 0.7 * n < short.sum() < 0.9 * n  # 0.2 is how often draft 1 is kept
    tokens[short, 1] = draws(MODEL[tokens[short, 0]], generator)
    counts = torch.bincount(tokens[:, 0] * 5 + tokens[:, 1], minlength=25).double()
    expected = n * (MODEL[0][:, None] * MODEL).view(-1)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert statistic < 51.2  # 23 degrees of freedom: once in 1500 draws


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen": torch.ones(5)}, "chosen is torch.float32: pass torch.int64"),
        ({"chosen": torch.ones(5, 1).long()}, r"chosen has shape \(5, 1\)"),
        ({"fed": torch.ones(4).long()}, r"fed has shape \(4,\): expected \(5,\)"),
        ({"fed": torch.ones(10).long()[::2]}, r"fed has strides \(2,\)"),
        ({"fed": torch.ones(5).int()}, "fed is torch.int32"),
        ({"fed": None}, "fed and cu_seqlens need each other"),
        ({"slots": torch.tensor([0, 1])}, "slots and last_token need each other"),
        ({"draft_probs": torch.ones(5)}, "draft_probs and uniforms need each other"),
        (
            {"fed": None, "cu_seqlens": None, "draft_probs": torch.ones(5)}
            | {"uniforms": torch.ones(5)},
            "draft_probs need fed",
        ),
        ({"draft_probs": torch.ones(5).half(), "uniforms": torch.ones(5)}, "is torch.float16"),
        ({"cu_seqlens": torch.tensor([0, 2, 5])}, "cu_seqlens is torch.int64"),
        ({"cu_seqlens": torch.tensor([0, 6, 5]).int()}, "cu_seqlens falls from 6 to 5 at 2"),
        ({"cu_seqlens": torch.tensor([0, 2, 6]).int()}, "cu_seqlens runs from 0 to 6: there are 5"),
        ({"cu_seqlens": torch.tensor([0, 2, 4]).int()}, "from 0 to 4: expected 0 to 5"),
        ({"cu_seqlens": torch.tensor([0, 1, 5]).int()}, "number of positions has 4 at 1"),
        ({"max_positions": 0}, "max_positions is 0"),
        ({"max_positions": 66}, "max_positions is 66: expected 1 to 65"),
        ({"budgets": torch.ones(3).int()}, r"budgets has shape \(3,\): expected \(2,\)"),
        ({"end_ids": torch.ones(1, 1).long()}, r"end_ids has shape \(1, 1\)"),
        (
            {"slots": torch.tensor([0, 4]), "last_token": torch.ones(4).long()},
            r"slots has 4 at 1: it must lie in \[0, 4\)",
        ),
        ({"output_addresses": torch.zeros(2).int()}, "output_addresses is torch.int32"),
        ({"out": poisoned(2, 4, "cpu")}, r"tokens has shape \(2, 4\): expected \(2, 3\)"),
        ({"budgets": torch.ones(2, device="meta").int()}, "budgets is on meta"),
    ],
)
def test_bad_arguments_are_named(change, message, device):
    given = {"chosen": torch.ones(5).long(), "fed": torch.ones(5).long(), "max_positions": 3}
    given |= {"cu_seqlens": torch.tensor([0, 2, 5]).int()} | change
    for name, value in given.items():
        if isinstance(value, torch.Tensor) and not value.is_meta and value.is_contiguous():
            given[name] = value.to(device)
    with pytest.raises(ValueError, match=message):
        accept_tokens(**given)
