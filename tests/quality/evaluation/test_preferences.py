"""Preferences from files: shapes, what is left out, what is refused and where."""

import gzip
import json
import re

import pytest

from flipfast.errors import InputError, MissingDependencyError
from flipfast.quality.evaluation import Preference, Preferences, read_preferences

ROW = {"prompt": "Name a river.", "chosen": ["The Ebro."], "rejected": ["Bread."]}
USER = {"role": "user", "content": "Name a river."}


def answer(text):
    return {"role": "assistant", "content": text}


@pytest.fixture
def read(tmp_path):
    """A function from rows, or raw lines, to what is read from a file of them."""

    def call(*rows, target="instruction"):
        path = tmp_path / "rows.jsonl"
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        path.write_bytes(b"\n".join(lines) + b"\n")
        return read_preferences(path, target)

    return call


def test_the_shape_of_reward_bench_2(read):
    row = {
        "id": "7",
        "prompt": "Name a river.",
        "chosen": ["The Ebro."],
        "rejected": ["Bread.", "A town.", "No."],
        "num_correct": 1,
        "num_incorrect": 3,
        "total_completions": 4,
        "models": ["a", "b", "c", "d"],
        "subset": "Focus",
        "additional_metadata": {"category": None},
    }
    (item,) = read(row).items
    assert item == Preference(
        1, "Name a river.", ("The Ebro.",), ("Bread.", "A town.", "No."), "Focus", "7"
    )
    assert item.group.responses == ("The Ebro.", "Bread.", "A town.", "No.")


def test_fields_that_may_be_missing(read):
    (item,) = read(ROW).items
    assert (item.subset, item.id, item.context) == ("all", None, None)
    (item,) = read({**ROW, "subset": None, "id": 3, "context": "user: Hi"}).items
    assert (item.subset, item.id, item.context) == ("all", "3", "user: Hi")
    assert item.group.context == "user: Hi"


PLAIN = Preference(1, "Name a river.", ("The Ebro.",), ("Bread.",))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Name a river.", "chosen": "The Ebro.", "rejected": "Bread."},
        {"prompt": [USER], "chosen": "The Ebro.", "rejected": ["Bread."]},
        {"chosen": [USER, answer("The Ebro.")], "rejected": [USER, answer("Bread.")]},
        {"prompt": [USER], "chosen": [answer("The Ebro.")], "rejected": [answer("Bread.")]},
        {"prompt": "Name a river.", "chosen": [USER, answer("The Ebro.")], "rejected": "Bread."},
        {"chosen": [[USER, answer("The Ebro.")]], "rejected": [[USER, answer("Bread.")]]},
        {"instruction": "Name a river.", "chosen": "The Ebro.", "rejected": answer("Bread.")},
        {
            "conversations": [{"from": "human", "value": "Name a river."}],
            "chosen": {"from": "gpt", "value": "The Ebro."},
            "rejected": {"from": "gpt", "value": "Bread."},
        },
    ],
)
def test_shapes_that_say_the_same(read, row):
    assert read(row).items == (PLAIN,)


def test_shapes_may_be_mixed(read):
    pairs = {"chosen": [USER, answer("The Ebro.")], "rejected": [USER, answer("Bread.")]}
    found = read(ROW, pairs, {**ROW, "prompt": [USER]}).items
    assert [item.line for item in found] == [1, 2, 3]
    assert {(item.instruction, item.chosen, item.rejected) for item in found} == {
        ("Name a river.", ("The Ebro.",), ("Bread.",))
    }


EARLIER = [{"role": "system", "content": "Be brief."}, USER, answer("The Ebro.")]


@pytest.mark.parametrize("in_prompt", [True, False])
def test_the_turns_before_are_context(read, in_prompt):
    asked = [*EARLIER, {"role": "user", "content": "And its length?"}]
    row = (
        {"prompt": asked, "chosen": ["930 km."], "rejected": ["Blue."]}
        if in_prompt
        else {"chosen": [*asked, answer("930 km.")], "rejected": [*asked, answer("Blue.")]}
    )
    (item,) = read(row).items
    assert item.instruction == "And its length?"
    assert item.context == "system: Be brief.\nuser: Name a river.\nassistant: The Ebro."
    assert (item.chosen, item.rejected) == (("930 km.",), ("Blue.",))
    (item,) = read({**row, "context": "mine"}).items
    assert item.context == "mine"


def test_the_system_prompt_as_target(read):
    asked = EARLIER[:2]
    (item,) = read({**ROW, "prompt": asked}, target="system").items
    assert (item.instruction, item.context) == ("Be brief.", "Name a river.")


@pytest.mark.parametrize("rejected", [[], None])
def test_rows_with_nothing_to_compare_are_counted(read, rejected):
    found = read(ROW, {**ROW, "rejected": rejected}, {"prompt": "Hi", "chosen": ["A"]}, ROW)
    assert [item.line for item in found.items] == [1, 4]
    assert found.no_rejected == (2, 3)


def test_blank_lines_and_a_byte_order_mark(read):
    found = read(b"\xef\xbb\xbf" + json.dumps(ROW).encode(), b"", b"  ", ROW)
    assert [item.line for item in found.items] == [1, 4]


def test_an_array(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([ROW], indent=1))
    assert read_preferences(path).items == (PLAIN,)


def test_tool_calls_count_if_asked_for(tmp_path):
    call = {**answer(None), "tool_calls": [{"name": "f", "arguments": "{}"}]}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**ROW, "chosen": [call]}))
    with pytest.raises(InputError, match="line 1: chosen: it has only tool calls"):
        read_preferences(path)
    assert read_preferences(path, tool_calls=True).items[0].chosen == ("f({})",)


def test_gzip(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ROW).encode()))
    assert read_preferences(path).items == (PLAIN,)


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    row = {**ROW, "subset": "Focus", "id": "1", "additional_metadata": {"category": None}}
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([row, {**row, "id": "2"}]), path)
    found = read_preferences(str(path)).items
    assert [(item.line, item.id, item.subset) for item in found] == [
        (1, "1", "Focus"),
        (2, "2", "Focus"),
    ]
    assert found[0].rejected == ("Bread.",)
    path.write_bytes(b"PAR1 but no more")
    with pytest.raises(InputError, match=r"cannot read .*rows\.parquet"):
        read_preferences(path)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        read_preferences(tmp_path / "rows.parquet")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b'{"prompt": "Hi", "chosen"', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1, 2]", "not a JSON object but"),
        ({**ROW, "chosen": []}, r"no chosen response: chosen is \[\]"),
        ({"prompt": "Hi", "rejected": ["A"]}, "no chosen among the fields"),
        ({**ROW, "chosen": 7}, "chosen must be a string, messages or a list of such, got 7"),
        ({**ROW, "rejected": ["A", None]}, r"rejected\[1\] must be .*, got None"),
        ({**ROW, "rejected": ["A", 3]}, r"rejected\[1\] must be .*, got 3"),
        ({**ROW, "rejected": [USER, 3]}, "rejected: message 1: expected .*, got 3"),
        ({**ROW, "chosen": [{"text": "A"}]}, "chosen: message 0: no role among"),
        ({**ROW, "chosen": {}}, "chosen: message 0: no role among"),
        ({**ROW, "rejected": answer(None)}, "rejected: it has no text: content is None"),
        ({**ROW, "chosen": [USER]}, "chosen: no assistant turn"),
        ({"chosen": [USER], "rejected": [USER, answer("B")]}, "chosen: no assistant turn"),
        ({**ROW, "prompt": [answer("Hello")]}, "no user turn"),
        ({"chosen": ["A"], "rejected": ["B"]}, "no prompt among the fields"),
        ({**ROW, "prompt": None}, "prompt is None"),
        (
            {
                "chosen": [USER, answer("A")],
                "rejected": [{"role": "user", "content": "Else"}, answer("B")],
            },
            "answer different ones",
        ),
        (
            {"chosen": [answer("A")], "rejected": [answer("B")]},
            "no prompt, and before the response: no user turn",
        ),
    ],
)
def test_a_bad_row_is_named(read, bad, message):
    with pytest.raises(InputError, match=rf"rows\.jsonl, line 3: .*{message}"):
        read(ROW, ROW, bad, ROW)


WRONG = {
    "prompt: expected a string or a list of .* messages": [True, 3, 1.5, {}, {"a": 1}],
    "chosen must be a string, messages or a list of such": [True, 3, 1.5],
    "rejected must be a string, messages or a list of such": [True, 3, 1.5],
    "context must be a string or None": [True, 3, 1.5, [], ["a"], {}, {"a": 1}],
    "subset must be a string or a whole number": [True, 1.5, [], ["a"], {}, {"a": 1}],
    "id must be a string or a whole number": [True, 1.5, [], ["a"], {}, {"a": 1}],
}


@pytest.mark.parametrize(
    ("message", "value"), [(message, value) for message in WRONG for value in WRONG[message]]
)
def test_a_field_of_a_wrong_type_is_named_with_its_value(read, message, value):
    field = re.match(r"\w+", message)[0]
    with pytest.raises(InputError, match=rf"line 2: {message}, got {re.escape(repr(value))}$"):
        read(ROW, {**ROW, field: value})


def test_an_id_that_comes_twice(read):
    rows = [{**ROW, "id": "a"}, {**ROW, "id": "b"}, {**ROW, "id": "a"}]
    with pytest.raises(InputError, match=r"line 3: the id 'a' is that of line 1"):
        read(*rows)
    with pytest.raises(InputError, match=r"line 2: the id '1' is that of line 1"):
        read({**ROW, "id": 1}, {**ROW, "id": "1", "rejected": []})


def test_subsets_may_count_for_themselves(read):
    rows = [{**ROW, "id": 0, "subset": name} for name in ("one", "two")]
    assert len(read(*rows).items) == 2


def test_nothing_at_all(read, tmp_path):
    for rows in ([], [{**ROW, "rejected": []}]):
        with pytest.raises(InputError, match="holds no row"):
            read(*rows)
    with pytest.raises(InputError, match=r"cannot read .*nowhere"):
        read_preferences(tmp_path / "nowhere.jsonl")
    with pytest.raises(InputError, match="cannot read"):
        read_preferences(tmp_path)


@pytest.mark.parametrize(
    "data", [b"not gzip at all", gzip.compress(b"{}" * 99, mtime=0)[:-9], gzip.compress(b"x")[:4]]
)
def test_a_broken_gzip_file(tmp_path, data):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"cannot read .*rows\.jsonl\.gz"):
        read_preferences(path)


def test_the_first_of_each_subset():
    items = tuple(
        Preference(line, "Hi", ("A",), ("B",), subset)
        for line, subset in enumerate(["x", "x", "y", "x", "y", "z"], start=1)
    )
    kept = Preferences(items, (9,)).first(2)
    assert [item.line for item in kept.items] == [1, 2, 3, 5, 6]
    assert kept.no_rejected == (9,)


def test_real_preferences(shared_file):
    found = read_preferences(shared_file("data/preferences_llmbar.jsonl.gz"))
    assert len(found.items) == 419
    assert found.no_rejected == ()
    assert len({item.subset for item in found.items}) == 5
    assert all(len(item.chosen) == len(item.rejected) == 1 for item in found.items)
