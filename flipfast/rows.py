"""Rows of a JSON Lines file: parses lines into texts to score, and adds the scores to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flipfast.checks import as_string, as_string_or_none, brief, field_found, named
from flipfast.errors import InputError
from flipfast.prompts.conversation import completion_text, split_messages, split_system
from flipfast.reward import FlipReward
from flipfast.scores import SCORE_KEYS

_PLURAL = {"reward": "rewards", "error": "errors"}
_FIELDS = "use instruction or messages, and response or responses"


@dataclass(frozen=True)
class InputRow:
    """One line of the input.

    Attributes:
        line: its number, from 1.
        fields: the line's JSON object; empty if it is not one.
        instruction: the true instruction.
        context: the conversation before the responses, or None.
        responses: the responses to score; empty for an invalid line.
        error: what is wrong with the line, or None.
    """

    line: int
    fields: dict[str, Any] = field(default_factory=dict)
    instruction: str = ""
    context: str | None = None
    responses: tuple[str, ...] = ()
    error: str | None = None


def read_row(raw: bytes, line: int, target: str) -> InputRow:
    """Parse one line of UTF-8; an invalid one is returned with its error."""
    try:
        fields = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return InputRow(line, error=f"not JSON: {error}")
    if not isinstance(fields, dict):
        return InputRow(line, error=f"not a JSON object but {brief(fields)}: {_FIELDS}")
    return row_of(fields, line, target)


def row_of(fields: dict[str, Any], line: int, target: str) -> InputRow:
    """Make a row from JSON fields; invalid ones are returned with the error."""
    try:
        instruction, context = _instruction(fields, target)
        return InputRow(line, fields, instruction, context, _responses(fields))
    except InputError as error:
        return InputRow(line, fields, error=str(error))


def score_rows(reward: FlipReward, rows: Sequence[InputRow]) -> list[list[dict[str, Any]]]:
    """Score the responses of all rows as one batch; returns a list of score dicts per row."""
    triples = [(row.instruction, text, row.context) for row in rows for text in row.responses]
    instructions, responses, contexts = zip(*triples, strict=True) if triples else ((), (), ())
    scores = iter(reward.score(instructions, responses, contexts).to_dicts())
    return [[next(scores) for _ in row.responses] for row in rows]


def scored_fields(row: InputRow, scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Make the output line of a row: its own fields, its line number and its scores.

    Args:
        row: the input.
        scores: of its responses, from ScoreBatch.to_dicts. A row with `response` gets single
            values, one with `responses` gets lists.
    """
    if row.error is not None:
        return {**row.fields, "line": row.line, "status": "error", "error": row.error}
    if "responses" not in row.fields:
        return {**row.fields, "line": row.line, **scores[0]}
    keys = scores[0] if scores else SCORE_KEYS
    lists = {_PLURAL.get(name, name): [score[name] for score in scores] for name in keys}
    return {**row.fields, "line": row.line, **lists}


def _instruction(fields: dict[str, Any], target: str) -> tuple[str, str | None]:
    context = as_string_or_none(fields.get("context"), "context")
    if "messages" in fields:
        split = split_system if target == "system" else split_messages
        with named("messages"):
            instruction, earlier = split(fields["messages"])
        return instruction, context if context is not None else earlier
    if "instruction" not in fields:
        raise InputError(f"{field_found(fields, 'instruction')}: {_FIELDS}")
    return as_string(fields["instruction"], "instruction"), context


def _responses(fields: dict[str, Any]) -> tuple[str, ...]:
    if "responses" in fields:
        if not isinstance(fields["responses"], list):
            raise InputError(f"responses must be a list, got {brief(fields['responses'])}")
        several = enumerate(fields["responses"])
        return tuple(_response(f"responses[{place}]", value) for place, value in several)
    if "response" not in fields:
        raise InputError(f"{field_found(fields, 'response')}: {_FIELDS}")
    return (_response("response", fields["response"]),)


def _response(name: str, value: object) -> str:
    with named(name):
        return completion_text(value)
