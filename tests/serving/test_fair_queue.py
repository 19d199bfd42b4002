"""Callers take turns, and nothing is lost."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flipfast.serving.fair_queue import FairQueue


def test_a_single_row_waits_for_one_of_each_other_caller():
    queue = FairQueue()
    for n in range(1000):
        queue.push("greedy", n)
    queue.push("modest", "x")
    queue.push("third", "y")
    assert [queue.pop() for _ in range(4)] == [0, "x", "y", 1]


def test_one_caller_is_served_in_order():
    queue = FairQueue()
    for n in range(5):
        queue.push("a", n)
    assert queue.remove("a", 2)
    assert not queue.remove("a", 2)
    assert not queue.remove("b", 2)
    assert [queue.pop() for _ in range(len(queue))] == [0, 1, 3, 4]
    with pytest.raises(KeyError):
        queue.pop()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["push", "pop", "remove"]))))
def test_what_goes_in_comes_out_once(steps):
    queue, inside, served = FairQueue(), {}, Counter()
    for n, (caller, what) in enumerate(steps):
        if what == "push":
            queue.push(caller, n)
            inside[n] = caller
        elif what == "pop" and inside:
            item = queue.pop()
            served[item] += 1
            caller = inside.pop(item)
            assert all(item < other for other, whose in inside.items() if whose == caller)
        elif what == "remove":
            mine = [item for item, whose in inside.items() if whose == caller]
            assert queue.remove(caller, mine[-1] if mine else -1) == bool(mine)
            if mine:
                del inside[mine[-1]]
        assert len(queue) == len(inside)
    assert all(count == 1 for count in served.values())
