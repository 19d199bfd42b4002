"""The forms of a row: each of the documented ones gives the same texts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from flipfast.errors import ContentlessError
from flipfast.rows import row_of
from flipfast.rows.forms import _ANSWERS, _QUESTIONS

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Name a river."}
REPLY = {"role": "assistant", "content": "The Ebro."}
HUMAN = {"from": "human", "value": "Name a river."}
GPT = {"from": "gpt", "value": "The Ebro."}

ONE: list[dict[str, Any]] = [
    {"instruction": "Name a river.", "response": "The Ebro."},
    {"prompt": "Name a river.", "response": "The Ebro."},
    {"prompt": "Name a river.", "completion": "The Ebro."},
    {"prompt": [USER], "completion": [REPLY]},
    {"prompt": [USER], "completion": REPLY},
    {"prompt": [HUMAN], "response": [GPT]},
    {"prompt": "Name a river.", "completion": "<think>Hm</think> The Ebro. "},
    {"conversations": [HUMAN, GPT]},
    {"conversations": [HUMAN], "response": "The Ebro."},
    {"messages": [USER, REPLY]},
    {"messages": [USER, REPLY], "response": None, "prompt": None, "chosen": None},
    {"messages": [USER], "response": "The Ebro."},
    {"instruction": "Name a river.", "input": "", "output": "The Ebro."},
    {"instruction": "Name a river.", "input": None, "output": "The Ebro.", "prompt": "Templated"},
]
PAIRS: list[dict[str, Any]] = [
    {"prompt": "Name a river.", "chosen": "The Ebro.", "rejected": "Bread."},
    {"prompt": [USER], "chosen": [REPLY], "rejected": ["Bread."]},
    {"chosen": [USER, REPLY], "rejected": [USER, {"role": "assistant", "content": "Bread."}]},
    {"chosen": [[HUMAN, GPT]], "rejected": [[HUMAN, {"from": "gpt", "value": "Bread."}]]},
    {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "Bread."}},
    {"instruction": "Name a river.", "input": "", "chosen": "The Ebro.", "rejected": "Bread."},
    {"prompt": "Name a river.", "responses": ["The Ebro.", [{"from": "gpt", "value": "Bread."}]]},
]


@pytest.mark.parametrize("fields", ONE)
def test_forms_with_one_response(fields: dict[str, Any]) -> None:
    row = row_of(fields, 3, "instruction")
    assert (row.error, row.line, row.several) == (None, 3, False)
    assert (row.instruction, row.responses, row.context) == ("Name a river.", ("The Ebro.",), None)


@pytest.mark.parametrize("fields", PAIRS)
def test_forms_with_several(fields: dict[str, Any]) -> None:
    row = row_of(fields, 1, "instruction")
    assert (row.error, row.several) == (None, True)
    assert (row.instruction, row.responses) == ("Name a river.", ("The Ebro.", "Bread."))


def test_alpacas_input_stands_below_the_instruction() -> None:
    fields = {"instruction": "Translate.", "input": "El río", "output": "The river"}
    row = row_of(fields, 1, "instruction")
    assert (row.instruction, row.responses) == ("Translate.\nEl río", ("The river",))
    assert row_of({**fields, "input": 5}, 1, "instruction").error == (
        "input must be a string or None, got 5"
    )


def test_a_conversation_with_turns_before() -> None:
    earlier = [SYSTEM, HUMAN, GPT]
    asked = {"from": "human", "value": "And its length?"}
    fields = {"conversations": [*earlier, asked, {"from": "gpt", "value": "930 km."}]}
    row = row_of(fields, 1, "instruction")
    context = "system: Be brief.\nuser: Name a river.\nassistant: The Ebro."
    assert (row.instruction, row.responses) == ("And its length?", ("930 km.",))
    assert row.context == context
    assert row_of({**fields, "context": "mine"}, 1, "instruction").context == "mine"
    system = row_of(fields, 1, "system")
    assert (system.instruction, system.context) == (
        "Be brief.",
        "user: Name a river.\nassistant: The Ebro.\nuser: And its length?",
    )


def test_the_first_field_that_is_there_counts() -> None:
    fields = {"messages": [USER], "instruction": "b", "prompt": "c", "response": "d", "output": "e"}
    row = row_of(fields, 1, "instruction")
    assert (row.instruction, row.responses) == ("Name a river.", ("d",))
    row = row_of({**fields, "messages": None, "response": None}, 1, "instruction")
    assert (row.instruction, row.responses) == ("b", ("e",))


CALL = {"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": "{}"}]}
TOOL = {"role": "tool", "content": "x"}


@pytest.mark.parametrize(
    ("fields", "reasons"),
    [
        ({"response": None}, ["response is None"]),
        ({"completion": None, "output": None}, ["completion is None"]),
        ({"messages": [USER], "response": None}, ["response is None"]),
        (
            {"responses": ["x", None, [CALL]]},
            [None, r"responses\[1\]: ", r"responses\[2\]: .*only"],
        ),
        ({"response": [CALL, TOOL]}, ["response: it ends in a turn of the role 'tool'"]),
        ({"messages": [USER, CALL]}, ["and messages: it has only tool calls"]),
        ({"messages": [USER, CALL, TOOL]}, ["and messages: it ends in a turn of the role 'tool'"]),
        ({"chosen": "x", "rejected": [CALL]}, [None, "rejected: it has only tool calls"]),
    ],
)
def test_a_response_without_a_text_keeps_its_place(
    fields: dict[str, Any], reasons: list[str | None]
) -> None:
    row = row_of({"instruction": "Name it", **fields}, 1, "instruction")
    assert row.error is None
    for found, reason in zip(row.responses, reasons, strict=True):
        if reason is None:
            assert found == "x"
        else:
            assert isinstance(found, ContentlessError)
            assert re.search(reason, str(found))


def test_tool_calls_count_if_asked_for() -> None:
    row = row_of({"messages": [USER, CALL, TOOL]}, 1, "instruction", True)
    assert (row.instruction, row.responses) == ("Name a river.", ("f({})",))


def test_a_conversation_that_ends_with_a_question_has_no_response() -> None:
    row = row_of({"conversations": [HUMAN]}, 1, "instruction")
    assert row.error == (
        "no response, and conversations: the last turns have the roles ['user']: the last must be "
        "the assistant's"
    )


def test_the_documented_fields() -> None:
    """The table in docs/cli.md names the fields that are read, in the order in which they count."""
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
    table = page.split("| field |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == [*_QUESTIONS, *_ANSWERS]
