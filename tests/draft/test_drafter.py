"""The drafter: equal to a slow one in Python, and right in cases that can be worked out by hand."""

from __future__ import annotations

import random
import threading

import numpy as np
import psutil
import pytest

from flipfast._core import Drafter
from tests.draft.slow_drafter import SlowDrafter


def propose(drafter, handle, limit=16, threshold=0.0):
    """One output's draft and its chances."""
    [(tokens, chances)] = drafter.propose([handle], [limit], threshold)
    assert len(tokens) == len(chances)
    return tokens, chances


def extend(drafter, handle, tokens):
    drafter.extend([handle], [tokens])


def random_source(rng, vocabulary):
    source = [rng.randrange(vocabulary) for _ in range(rng.choice([0, 1, 5, 40, 300]))]
    return [-1, *source] if rng.random() < 0.5 else source


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_proposals_equal_those_of_the_slow_drafter(seed):
    # Three tokens make too few contexts for two of them to meet in the history's tables.
    rng = random.Random(seed)
    max_draft = rng.choice([1, 5, 16])
    fast, slow = Drafter(max_draft), SlowDrafter(max_draft)
    open_handles, n_drafted = [], 0
    for _ in range(1500):
        if not open_handles or (len(open_handles) < 6 and rng.random() < 0.1):
            sources = [random_source(rng, 3) for _ in range(rng.randrange(6))]
            start = [rng.randrange(3) for _ in range(rng.choice([0, 0, 2]))]
            open_handles.append((fast.open(sources, start), slow.open(sources, start)))
        i = rng.randrange(len(open_handles))
        handle, twin = open_handles[i]
        limit, threshold = rng.choice([0, 3, 16, 40]), rng.choice([0.0, 0.05, 0.4, 2.0])
        draft, chances = propose(fast, handle, limit, threshold)
        assert (draft, chances) == slow.propose(twin, limit, threshold)
        n_drafted += len(draft)
        # Some of the draft, then mostly one other token; at times nothing, at times more.
        added = draft[: rng.randrange(len(draft) + 1)]
        added += [rng.randrange(3) for _ in range(rng.choice([0, 1, 1, 4]))]
        extend(fast, handle, added)
        slow.extend(twin, added)
        if rng.random() < 0.03:
            learn = rng.random() < 0.7
            fast.close(handle, learn)
            slow.close(twin, learn)
            open_handles.pop(i)
    assert n_drafted > 500


def test_a_batch_gets_what_its_outputs_get_alone():
    rng = random.Random(1)
    sources = [[random_source(rng, 9)] for _ in range(20)]
    limits = [rng.randrange(9) for _ in sources]
    drafter = Drafter(8)
    handles = [drafter.open(source) for source in sources]
    drafts = drafter.propose(handles, limits, 0.0)
    for handle, limit, draft in zip(handles, limits, drafts, strict=True):
        assert draft == propose(drafter, handle, limit)
    drafter.extend(handles, [tokens for tokens, _ in drafts])
    again = Drafter(8)
    for handle, source, (tokens, _) in zip(handles, sources, drafts, strict=True):
        assert propose(again, again.open(source, tokens))[0] == propose(drafter, handle)[0]


def test_an_instruction_is_proposed_whole_from_the_start():
    instruction = [31, 7, 44, 7, 9, 4]
    drafter = Drafter(16)
    draft, chances = propose(drafter, drafter.open([[-1, *instruction]]))
    assert draft == instruction
    assert chances == [0.5**n for n in range(1, 7)]
    assert propose(drafter, drafter.open([[-1, *instruction]]), limit=3)[0] == instruction[:3]
    assert propose(drafter, drafter.open([[-1, *instruction]]), threshold=0.25) == (
        instruction[:2],
        [0.5, 0.25],
    )


def test_a_draft_changes_from_one_source_to_the_next():
    scaffold, field, response = [-1, 1, 2, 3], [5, 6, 70, 71, 8], [90, 3, 50, 51, 5, 6, 52]
    drafter = Drafter(16)
    handle = drafter.open([scaffold, field, response])
    assert propose(drafter, handle)[0] == [1, 2, 3, 50, 51, 5, 6, 70, 71, 8]
    extend(drafter, handle, [1, 2, 3, 50, 51, 5])
    assert propose(drafter, handle)[0] == [6, 70, 71, 8]


def test_the_longest_match_wins_then_the_latest():
    drafter = Drafter(1)
    source = [1, 2, 3, 10, 9, 2, 3, 11, 9, 2, 3, 12]
    assert propose(drafter, drafter.open([source], [1, 2, 3]))[0] == [10]
    assert propose(drafter, drafter.open([source], [9, 2, 3]))[0] == [12]
    assert propose(drafter, drafter.open([source], [5, 2, 3]))[0] == [12]


def test_a_loop_of_the_output_goes_on():
    drafter = Drafter(7)
    handle = drafter.open([])
    assert propose(drafter, handle)[0] == []
    extend(drafter, handle, [5, 6, 7, 5, 6])
    assert propose(drafter, handle)[0] == [7, 5, 6, 7, 5, 6, 7]


def test_what_is_rejected_is_drafted_no_more():
    drafter = Drafter(16)
    source = [1, 2] * 3 + [8]
    handle = drafter.open([source, [2, 7]], [1])
    _, chances = propose(drafter, handle)
    for _ in range(40):
        propose(drafter, handle)
        extend(drafter, handle, [9, 1])  # never the 2 that the source has behind the 1
    draft, lower = propose(drafter, handle, threshold=0.2)
    assert draft == [9, 1, 9, 1, 9, 1, 9, 1, 9, 1, 9, 1, 9, 1, 9, 1]  # as the output does
    assert lower[0] > chances[0]


@pytest.mark.parametrize("idle", [{"limit": 0}, {"threshold": 0.9}])
def test_a_guess_that_is_not_proposed_is_learned_from(idle):
    drafter = Drafter(16)
    assert propose(drafter, drafter.open([[-1, 3, 5]]), **idle) == ([], [])
    for _ in range(60):
        handle = drafter.open([[-1, 3, 5]])
        propose(drafter, handle, **idle)
        extend(drafter, handle, [3])
    draft, chances = propose(drafter, drafter.open([[-1, 3, 5]]), threshold=0.9)
    assert draft == [3]
    assert chances[0] > 0.95


def test_an_output_that_was_cut_says_nothing_of_the_rest():
    twins = [Drafter(16), Drafter(16)]
    for drafter, wrong in zip(twins, [[], [99]], strict=True):
        handle = drafter.open([[-1, 1, 2, 3, 4]])
        propose(drafter, handle)
        extend(drafter, handle, [])
        extend(drafter, handle, [1, 2, *wrong])
        drafter.close(handle, learn=False)
    cut, rejected = (propose(d, d.open([[-1, 1, 2, 3, 4]]))[1] for d in twins)
    assert cut[:2] == rejected[:2]
    assert cut[2] > rejected[2]
    assert cut[0] == np.float32((0.995 * 1.5 + 1) / (0.995 * 3 + 1))


def test_tokens_behind_an_outputs_start_are_not_proposed():
    drafter = Drafter(16)
    handle = drafter.open([[1, 2, -1, 3, 4]], [1])
    assert propose(drafter, handle)[0] == [2]
    assert propose(drafter, drafter.open([[1, 2, -1, 3, 4]]))[0] == [3, 4]
    assert propose(drafter, drafter.open([[], [-1]]))[0] == []


def test_finished_outputs_are_repeated():
    drafter = Drafter(16)
    output = [11, 12, 13, 14, 4]
    for learn, expected in ((False, []), (True, output), (True, output)):
        handle = drafter.open([])
        extend(drafter, handle, output)
        drafter.close(handle, learn)
        assert propose(drafter, drafter.open([]))[0] == expected
    for _ in range(20):  # most outputs begin otherwise
        drafter.close(drafter.open([], [21, 12, 22]), learn=True)
    assert propose(drafter, drafter.open([]))[0] == [21, 12, 22]
    assert propose(drafter, drafter.open([], [11]))[0] == [12, 13, 14, 4]


def test_a_full_history_keeps_habits_and_makes_nothing_up():
    rng = random.Random(2)
    drafter = Drafter(4)
    for _ in range(50):
        drafter.close(drafter.open([], [1, 2, 3]), learn=True)
    for _ in range(3000):
        output = [rng.randrange(10, 10**6) for _ in range(100)]
        drafter.close(drafter.open([], output), learn=True)
    assert propose(drafter, drafter.open([], [1]))[0][:2] == [2, 3]
    assert propose(drafter, drafter.open([], [10**6]))[0] == []


def test_habits_may_change():
    drafter = Drafter(1)
    for token in [1] * 5000 + [2] * 1500:
        drafter.close(drafter.open([], [token]), learn=True)
    assert propose(drafter, drafter.open([]))[0] == [2]


def test_a_source_as_long_as_a_prompt():
    rng = random.Random(4)
    source = [min(int(rng.paretovariate(0.6)), 9000) for _ in range(30_000)]
    slow, drafter = SlowDrafter(16), Drafter(16)
    for at in (17, 9_000, 29_990):
        start = source[at : at + 8]
        expected = slow.propose(slow.open([source], start), 16, 0.0)
        assert propose(drafter, drafter.open([source], start)) == expected
    assert expected[0] == source[29_998:] + expected[0][2:]


@pytest.mark.slow
def test_memory_is_bounded():
    process, before = psutil.Process(), 0
    drafter = Drafter(16)
    rng = random.Random(5)
    for n in range(600):
        if n == 200:
            before = process.memory_info().rss
        source = [rng.randrange(50_000) for _ in range(2000)]
        drafter.close(drafter.open([source], source), learn=True)
    assert process.memory_info().rss - before < 8 * 2**20


def test_many_threads_share_a_drafter():
    drafter, wrong = Drafter(16), []

    def work(token):
        for _ in range(200):
            handle = drafter.open([[-1, token, token + 1, token]])
            draft, _ = propose(drafter, handle)
            extend(drafter, handle, draft[:2])
            if draft[:3] != [token, token + 1, token]:
                wrong.append(draft)
            drafter.close(handle, learn=False)

    threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_bad_arguments_are_named_and_change_nothing():
    drafter = Drafter(4)
    handle = drafter.open([[-1, 5, 6]])
    for call, name in [
        (lambda: Drafter(0), "max_draft must be at least 1, not 0"),
        (lambda: drafter.open([[1, -2]]), "token -2"),
        (lambda: drafter.open([], [-1]), "token -1"),
        (lambda: drafter.close(99, True), "handle 99"),
        (lambda: drafter.propose([99], [4], 0.0), "handle 99"),
        (lambda: drafter.propose([handle, handle], [4], 0.0), "1 limits where 2"),
        (lambda: drafter.extend([handle, 99], [[5], []]), "handle 99"),
        (lambda: drafter.extend([handle, handle], [[5]]), "1 lists of tokens where 2"),
        (lambda: drafter.extend([handle], [[5, -1]]), "token -1"),
    ]:
        with pytest.raises(ValueError, match=name):
            call()
    for call in [
        lambda: drafter.propose([handle], [4], None),
        lambda: drafter.extend([handle], [[5.5]]),
        lambda: drafter.open([["a"]]),
    ]:
        with pytest.raises(TypeError):
            call()
    assert propose(drafter, handle) == ([5, 6], [0.5, 0.25])
    drafter.close(handle, learn=False)
    with pytest.raises(ValueError, match=f"handle {handle}"):
        drafter.close(handle, learn=False)
