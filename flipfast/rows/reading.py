"""Rows to score, from lines of JSON or from fields."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from flipfast.checks import brief
from flipfast.errors import InputError
from flipfast.rows.forms import FIELDS, Response, read_texts


@dataclass(frozen=True)
class InputRow:
    """One row of the input.

    Attributes:
        line: its number, from 1; see `files`.
        fields: the row's JSON object; empty if it is not one.
        instruction: the true instruction.
        context: the conversation before the responses, or None.
        responses: the responses to score, with an error in the place of one without a text; empty
            for an invalid row.
        several: whether the row has a list of responses, and so gets lists of scores.
        error: what is wrong with the row, or None.
    """

    line: int
    fields: dict[str, Any] = field(default_factory=dict)
    instruction: str = ""
    context: str | None = None
    responses: tuple[Response, ...] = ()
    several: bool = False
    error: str | None = None


def read_row(raw: Any, line: int, target: str, tool_calls: bool = False) -> InputRow:
    """Read a row of `files`; an invalid one is returned with its error.

    Args:
        raw: a line of UTF-8, or a value that is parsed already.
        line: its number.
        target, tool_calls: of FlipConfig.
    """
    try:
        fields = parsed(raw)
    except InputError as error:
        return InputRow(line, error=str(error))
    return row_of(fields, line, target, tool_calls)


def row_of(fields: dict[str, Any], line: int, target: str, tool_calls: bool = False) -> InputRow:
    """Make a row from JSON fields; invalid ones are returned with the error."""
    try:
        (instruction, context), responses, several = read_texts(fields, target, tool_calls)
    except InputError as error:
        return InputRow(line, fields, error=str(error))
    return InputRow(line, fields, instruction, context, responses, several)


def parsed(raw: Any) -> dict[str, Any]:
    """Return the fields of a row of `files`; InputError if it holds no object."""
    fields = raw
    if isinstance(raw, bytes):
        try:
            fields = json.loads(raw.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise InputError(f"not a JSON object but {brief(fields)}: {FIELDS}")
    return fields
