"""Spans from token ids: against a walk in Python, over random automata, and bad arguments."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton")

from flipfast_kernels.spans import (
    EMPTY,
    FOUND,
    LENGTH_BITS,
    STATE_BITS,
    UNDECIDED,
    SpanAutomaton,
    find_spans,
    find_spans_ref,
)

N_STATES, N_CLASSES, VOCAB = 9, 30, 50
FIRST_INSIDE, FIRST_AFTER = 4, 7


def random_automaton(seed=0):
    """States mostly move on to a later phase or stay; some die."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high, *shape):
        return torch.randint(low, high, shape, generator=generator)

    to = draw(0, N_STATES, N_CLASSES, N_STATES)
    states = torch.arange(N_STATES)
    after = torch.where(draw(0, 12, N_CLASSES, N_STATES) == 0, 0, torch.maximum(to, states))
    after = torch.where(draw(0, 3, N_CLASSES, N_STATES) > 0, states, after)
    after[:, 0] = 0
    table = draw(0, 1 << 15 - STATE_BITS, N_CLASSES, N_STATES) << STATE_BITS | after
    table[0], table[1] = 0, states
    words = draw(2, N_CLASSES, VOCAB) << LENGTH_BITS | draw(1, 1 << LENGTH_BITS, VOCAB)
    words[3], words[4] = 0, 1 << LENGTH_BITS  # unknown, without bytes
    results = torch.tensor([UNDECIDED, EMPTY, FOUND, UNDECIDED, FOUND, EMPTY, FOUND, FOUND, FOUND])
    return SpanAutomaton(words.int(), table.short(), results.int(), FIRST_INSIDE, FIRST_AFTER)


def random_rows(lens, dtype=torch.int64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    width = max(lens, default=0)
    # Rows of a wider matrix, and ids beyond the vocabulary behind each row's end.
    ids = torch.randint(0, VOCAB, (len(lens), width + 3), generator=generator).to(dtype)[:, :width]
    for row, length in enumerate(lens):
        ids[row, length:] = VOCAB + row
    return ids, torch.tensor(lens, dtype=torch.int32)


def walk(automaton, row):
    """Begin, end and status of one row, a token at a time, in plain integers."""
    words, table = automaton.tokens.tolist(), automaton.table.tolist()
    state, position, begin, end = 1, 0, 0, None
    for token in row:
        group, length = divmod(words[token], 1 << LENGTH_BITS)
        event, after = divmod(table[group][state], 1 << STATE_BITS)
        if state < FIRST_INSIDE <= after:
            begin = position + event
        if state < FIRST_AFTER <= after:
            end = position + event
        position, state = position + length, after
    status = automaton.results[state].item()
    if status != FOUND:
        return 0, 0, status
    return begin, position if end is None else end, status


def rows_of(spans):
    assert {edge.dtype for edge in spans} == {torch.int32}
    return list(zip(*(edge.tolist() for edge in spans), strict=True))


def on(device, automaton, *tensors):
    return automaton.to(device), *(tensor.to(device) for tensor in tensors)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(
    "lens", [[0], [1], [0, 31, 32, 33, 63, 65, 7], [8] * 33, [i % 11 for i in range(257)]]
)
def test_equals_a_walk_in_python(lens, dtype, device):
    automaton = random_automaton(len(lens))
    ids, lengths = random_rows(lens, dtype)
    expected = [walk(automaton, row[:n]) for row, n in zip(ids.tolist(), lens, strict=True)]
    moved, ids, lengths = on(device, automaton, ids, lengths)
    if len(lens) == 257:
        assert {status for *_, status in expected} == {UNDECIDED, FOUND, EMPTY}
        assert len({begin for begin, *_ in expected}) > 5
    assert rows_of(find_spans(ids, lengths, moved)) == expected
    assert rows_of(find_spans_ref(ids, lengths, moved)) == expected


def test_no_rows_and_no_tokens(device):
    automaton = random_automaton().to(device)
    for find in (find_spans, find_spans_ref):
        for n in (0, 3):
            ids, lens = torch.zeros(n, 0, dtype=torch.int32), torch.zeros(n, dtype=torch.int32)
            spans = find(ids.to(device), lens.to(device), automaton)
            assert rows_of(spans) == [(0, 0, EMPTY)] * n


@pytest.mark.slow
def test_a_row_has_the_same_span_in_every_company(device):
    automaton, ids, lens = on(device, random_automaton(5), *random_rows([9, 0, 20, 14] * 10))
    whole = find_spans(ids, lens, automaton)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3)).to(device)
    assert all(
        torch.equal(a[order], b)
        for a, b in zip(whole, find_spans(ids[order], lens[order], automaton), strict=True)
    )
    for row in range(0, 40, 9):
        alone = find_spans(ids[row : row + 1], lens[row : row + 1], automaton)
        assert rows_of(alone) == rows_of(whole)[row : row + 1]


def test_values_that_nobody_checked_lead_nowhere(device):
    """Unknown ids leave their row undecided, and lengths are cut to the row."""
    # Any token of one byte is part of the value.
    table, results = torch.tensor([[0, 0], [0, 1]]), torch.tensor([UNDECIDED, FOUND])
    tokens = torch.full((3,), 1 << LENGTH_BITS | 1)
    automaton = SpanAutomaton(tokens.int(), table.short(), results.int(), 1, 2)
    ids = torch.zeros(5, 9, dtype=torch.int64)[:, :4]
    ids[0, 2], ids[1, 0] = -1, 1 << 40
    lens = torch.tensor([4, 4, 9, -5, 3], dtype=torch.int32)
    automaton, ids, lens = on(device, automaton, ids, lens)
    assert rows_of(find_spans(ids, lens, automaton, validate=False)) == [
        *((0, 0, UNDECIDED), (0, 0, UNDECIDED), (0, 4, FOUND), (0, 0, FOUND), (0, 3, FOUND))
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_ids": torch.zeros(2, 3)}, "token_ids is torch.float32"),
        ({"token_ids": torch.zeros(6).int()}, r"token_ids has shape \(6,\)"),
        ({"token_ids": torch.zeros(3, 2).int().T}, r"token_ids has strides \(1, 2\)"),
        ({"token_ids": torch.tensor([[1, 2, 3], [1, 2, -7]])}, "token_ids has -7 at 5"),
        ({"token_ids": torch.tensor([[1, 2, 50], [1, 2, 3]])}, r"has 50 at 2.*\[0, 50\)"),
        ({"lens": torch.zeros(2, device="meta").int()}, "lens is on meta"),
        ({"token_ids": torch.zeros(1, 1).int().expand(2, 1 << 20).repeat(1, 2)}, "at most 1048576"),
        ({"lens": torch.tensor([1, 2])}, "lens is torch.int64: pass int32"),
        ({"lens": torch.tensor([1.0, 2.0])}, "lens is torch.float32"),
        ({"lens": torch.tensor([1]).int()}, r"lens has shape \(1,\): expected \(2,\)"),
        ({"lens": torch.tensor([3, 4]).int()}, r"lens has 4 at 1.*\[0, 4\)"),
        ({"lens": torch.tensor([-1, 2]).int()}, "lens has -1 at 0"),
        ({"lens": torch.tensor([3, 0, 3]).int()[::2]}, r"lens has strides \(2,\)"),
        ({"tokens": torch.zeros(5)}, r"automaton.tokens is torch.float32 \(5,\)"),
        (
            {"tokens": torch.full((9,), 30 << LENGTH_BITS).int()},
            "a class of automaton.tokens has 30 at 0",
        ),
        ({"table": torch.zeros(9, 9).int()}, "automaton.table is torch.int32"),
        ({"table": torch.zeros(1, 9).short()}, r"automaton.table has shape \(1, 9\)"),
        ({"table": torch.full((30, 9), 9).short()}, "a state of automaton.table has 9 at 0"),
        ({"results": torch.zeros(4).int()}, r"automaton.results has shape \(4,\): expected \(9,\)"),
    ],
)
def test_bad_arguments_are_named(change, message, device):
    ids, lens = torch.ones(2, 3, dtype=torch.int32), torch.tensor([3, 3], dtype=torch.int32)
    given = {"token_ids": ids, "lens": lens} | change
    automaton = replace(
        random_automaton(),
        **{k: given.pop(k) for k in ("tokens", "table", "results") if k in given},
    )
    here = {k: v if v.is_meta else v.to(device) for k, v in given.items()}
    with pytest.raises(ValueError, match=message):
        find_spans(**here, automaton=automaton.to(device))
