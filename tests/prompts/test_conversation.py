"""Conversations: what is inferred, its context, and which part of a reply counts."""

import gzip
import json

import pytest

from flipfast import InputError
from flipfast.prompts.conversation import (
    chat_texts,
    completion_text,
    final_answer,
    split_messages,
    split_query,
    split_system,
)


def turn(role, content):
    return {"role": role, "content": content}


def read_golden(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_recorded_final_answers(shared_file):
    rows = read_golden(shared_file("golden/final_answer_golden.jsonl.gz"))
    assert len(rows) == 400
    for row in rows:
        assert final_answer(row["prediction"]) == row["final_answer"], row


def test_recorded_query_splits(shared_file):
    rows = read_golden(shared_file("golden/query_split_golden.jsonl.gz"))
    assert len(rows) == 401
    for row in rows:
        split = split_query(row["query"], row["label"])
        assert split == (row["ground_truth"], row["context"]), row


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("a <answer> b\nc </answer> <answer>d</answer>", "b\nc"),
        ("</answer> <answer>a", "</answer> <answer>a"),
        ("r </think> a </think> b", "a </think> b"),
        ("<answer>a</think> b ", "b"),
        (" <|assistant|> a ", "a"),
        (" a ", " a "),
    ],
)
def test_final_answer(reply, answer):
    assert final_answer(reply) == answer


@pytest.mark.parametrize(
    ("query", "split"),
    [
        ("user: one\ntwo", ("one", "")),
        ("system: s\nuser: a\nassistant: b\nUSER : c: d \nassistant: e", ("c: d", None)),
        ("user: a\nusername: bob", ("bob", "user: a")),
        ("no turns", ("LABEL", "no turns")),
        (None, ("LABEL", "")),
    ],
)
def test_line_scan(query, split):
    truth, context = split
    if context is None:
        context = "system: s\nuser: a\nassistant: b"
    assert split_query(query, "LABEL") == (truth, context)


def test_last_user_turn_is_the_instruction_whole():
    assert split_messages([turn("user", "one\nuser: two\n")]) == ("one\nuser: two\n", None)
    messages = [
        turn("system", "s"),
        turn("user", None),
        turn("assistant", [{"type": "text", "text": "a\nb"}]),
        turn(
            "user",
            [{"type": "text", "text": "x"}, {"type": "image"}, {"type": "text", "text": "y"}],
        ),
        turn("assistant", "later"),
    ]
    assert split_messages(messages) == ("xy", "system: s\nuser: \nassistant: a\nb")


def test_system_prompt_with_the_user_prompt_as_context():
    assert split_system([turn("system", "s"), turn("user", "u")]) == ("s", "u")
    messages = [turn("system", "s"), turn("user", "u"), turn("assistant", "a"), turn("system", "t")]
    messages += [turn("user", "v"), turn("assistant", "b")]
    assert split_system(messages) == ("s\nt", "user: u\nassistant: a\nuser: v")


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("plain", "plain"),
        ([turn("assistant", "a"), turn("tool", "t"), turn("assistant", "b")], "b"),
        ([turn("assistant", "a"), turn("user", "u")], "a"),
        (turn("assistant", "a"), "a"),
        ([turn("assistant", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])], "ab"),
    ],
)
def test_completion_text(completion, text):
    assert completion_text(completion) == text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: split_messages("user: x"), "list.*'user: x'"),
        (lambda: split_messages([]), r"no user turn.*roles \[\]"),
        (
            lambda: split_messages([turn("system", "s"), turn("tool", "t")]),
            "no user.*'system', 'tool'",
        ),
        (lambda: split_messages(["x"]), "message 0.*'x'"),
        (
            lambda: split_messages([turn("user", "x"), {"content": "y"}]),
            r"message 1: no role among the fields \['content'\]",
        ),
        (lambda: split_messages([turn(5, "x")]), "message 0: role is 5: use a string"),
        (lambda: split_messages([turn("user", 5)]), "message 0: content is 5"),
        (lambda: split_messages([turn("user", ["x"])]), "part 'x'"),
        (lambda: split_messages([turn("user", [{"type": "text"}])]), "part {'type': 'text'}"),
        (lambda: split_system([turn("user", "u")]), "no system turn.*user"),
        (lambda: split_system([turn("system", "s")]), "no user turn"),
        (lambda: completion_text([turn("user", "u")]), "no assistant turn.*user"),
        (lambda: completion_text({"role": "user", "content": "x"}), "no assistant turn.*user"),
        (lambda: final_answer(b"x"), "b'x'"),
        (lambda: split_query(5, "x"), "got 5"),
    ],
)
def test_wrong_shapes_name_the_value(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("messages", ["x" * 10_000, [turn(f"role {i}", "x") for i in range(999)]])
def test_a_long_wrong_value_is_shortened(messages):
    with pytest.raises(InputError) as caught:
        split_messages(messages)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("wrong", [None, True, 3, "text", [], ["text"]])
@pytest.mark.parametrize("field", ["prompt", "completion"])
def test_a_wrong_message_is_named_with_its_field_and_place(field, wrong):
    texts = {"prompt": "name it", "completion": "Po", field: [turn("tool", "x"), wrong]}
    with pytest.raises(InputError) as caught:
        chat_texts(**texts, target="instruction")
    expected = f'{field}: message 1: expected {{"role": ..., "content": ...}}, got {wrong!r}'
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        *(("prompt", value) for value in [None, True, 3, 1.5, {}, {"a": 1}]),
        *(("completion", value) for value in [True, 3, 1.5]),
    ],
)
def test_a_prompt_and_a_completion_may_be_strings_or_messages(field, wrong):
    with pytest.raises(InputError) as caught:
        chat_texts(**{"prompt": "name it", "completion": "Po", field: wrong}, target="instruction")
    assert str(caught.value).startswith(f"{field}: expected a string or a list of ")
    assert str(caught.value).endswith(f", got {wrong!r}")
