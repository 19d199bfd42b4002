"""What scoring returns."""

import json
import pickle

from flipfast.scores import Lazy


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
