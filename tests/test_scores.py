"""What scoring returns."""

import json
import pickle

import pytest

from flipfast.errors import InputError
from flipfast.scores import Lazy, ScoreBatch, failed_row


def test_entries_are_made_once_and_only_when_read():
    made = []

    def make() -> str:
        made.append(1)
        return "b"

    texts = Lazy(["a", make, "c"])
    assert len(texts) == 3
    assert (texts[0], texts[-1]) == ("a", "c")
    assert made == []
    assert texts[1] == "b"
    assert texts[:2] == ["a", "b"]
    assert made == [1]


def test_entries_pass_for_a_list():
    texts = Lazy(["a", lambda: "b"])
    assert texts == ["a", "b"]
    assert texts == Lazy(["a", "b"])
    assert texts != ["a"]
    assert texts != "ab"
    assert repr(texts) == "['a', 'b']"
    assert json.dumps(list(texts)) == '["a", "b"]'
    copy = pickle.loads(pickle.dumps(Lazy([lambda: "x"])))
    assert copy == ["x"]


def batch_of(*rewards: float | None) -> ScoreBatch:
    rows = [dict(failed_row("x" if reward is None else ""), reward=reward) for reward in rewards]
    return ScoreBatch.from_dicts(rows, 1.0)


def test_groups_without_variance():
    batch = batch_of(0.5, 0.5, 0.5, 0.25, None, 0.5, None, None)
    flags = [True, True, False, False, True, True, True, True]
    assert batch.zero_variance(2) == flags
    assert batch.zero_variance(["a", "a", "b", "b", "a", "a", "c", "c"]) == flags
    messages = [[{"role": "user", "content": text}] for text in "aabbaacc"]
    assert batch.zero_variance(messages) == flags
    assert batch.zero_variance(4) == [False] * 4 + [True] * 4
    assert batch_of().zero_variance(4) == []


@pytest.mark.parametrize("groups", [3, 0, -8, ["a"] * 7])
def test_groups_that_do_not_fit(groups):
    with pytest.raises(InputError):
        batch_of(*[0.5] * 8).zero_variance(groups)
