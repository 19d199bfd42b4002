"""What is said of the rows of a file that are broken."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flipfast.rows import read_row, row_of

ROW = {"instruction": "Name a river", "response": "Ebro"}
SCALARS = [True, 3, 1.5, {}, {"a": 1}]
MESSAGES = 'a list of {"role": ..., "content": ...} messages'
WRONG: dict[str, tuple[str, list[Any]]] = {
    "instruction": (" must be a string", [[], ["a"], *SCALARS]),
    "context": (" must be a string or None", [[], ["a"], *SCALARS]),
    "messages": (f": expected {MESSAGES}", ["", "text", *SCALARS]),
    "response": (f": expected a string or {MESSAGES}", SCALARS[:3]),
    "responses": (" must be a list", ["", "text", *SCALARS]),
}


@pytest.mark.parametrize("target", ["instruction", "system"])
@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field in WRONG for value in WRONG[field][1]]
)
def test_a_field_of_a_wrong_type_is_named_with_its_value(
    field: str, value: Any, target: str
) -> None:
    row = read_row(json.dumps({**ROW, field: value}).encode(), 7, target)
    assert row.line == 7
    assert row.error == f"{field}{WRONG[field][0]}, got {value!r}"


@pytest.mark.parametrize("value", SCALARS[:3])
def test_a_response_of_a_wrong_type_is_named_with_its_place(value: Any) -> None:
    row = row_of({"instruction": "Name a river", "responses": ["Ebro", None, value]}, 1, "system")
    assert row.error == f"responses[2]: expected a string or {MESSAGES}, got {value!r}"


@pytest.mark.parametrize("value", [None, "text", [], *SCALARS[:3]])
@pytest.mark.parametrize(
    ("field", "place"), [("messages", ""), ("response", ""), ("responses", "[0]")]
)
def test_a_wrong_message_is_named_with_its_place(field: str, place: str, value: Any) -> None:
    row = row_of({**ROW, field: [[value]] if place else [value]}, 1, "instruction")
    expected = '{"role": ..., "content": ...}'
    assert row.error == f"{field}{place}: message 0: expected {expected}, got {value!r}"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, "no instruction among the fields []"),
        ({"response": "x"}, "no instruction among the fields ['response']"),
        ({"instruction": None, "response": "x"}, "instruction is None"),
        ({"instruction": "x"}, "no response among the fields ['instruction']"),
    ],
)
def test_a_missing_field_is_named_with_those_there_are(fields: dict[str, Any], error: str) -> None:
    found = row_of(fields, 1, "instruction").error
    assert found is not None
    assert found.startswith(f"{error}: use instruction, prompt or messages, and response, ")


@pytest.mark.parametrize("value", [None, True, 3, 1.5, "text", [], [1, 2]])
def test_a_line_that_is_no_object_is_shown(value: Any) -> None:
    error = read_row(json.dumps(value).encode(), 1, "instruction").error
    assert error is not None
    assert error.startswith(f"not a JSON object but {value!r}: use instruction, prompt")
