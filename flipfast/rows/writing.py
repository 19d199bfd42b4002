"""The scores of rows, and the output lines with them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from flipfast.reward import FlipReward
from flipfast.rows.forms import Response
from flipfast.rows.reading import InputRow
from flipfast.scores import EXTRA_KEYS, SCORE_KEYS

_PLURAL = {"reward": "rewards", "error": "errors"}
# What an output line may have besides the fields of its row.
RESERVED = frozenset({"line", *SCORE_KEYS, *EXTRA_KEYS, *_PLURAL.values()})


class Answered(Protocol):
    """An instruction with any number of responses to it, such as an InputRow."""

    @property
    def instruction(self) -> str: ...
    @property
    def responses(self) -> Sequence[Response]: ...
    @property
    def context(self) -> str | None: ...


def score_rows(reward: FlipReward, rows: Sequence[Answered]) -> list[list[dict[str, Any]]]:
    """Score the responses of all rows as one batch; returns a list of score dicts per row."""
    triples = [(row.instruction, text, row.context) for row in rows for text in row.responses]
    instructions, responses, contexts = zip(*triples, strict=True) if triples else ((), (), ())
    scores = iter(reward.score(instructions, responses, contexts).to_dicts())
    return [[next(scores) for _ in row.responses] for row in rows]


def scored_fields(row: InputRow, scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Make the output line of a row: its own fields, its line number and its scores.

    Args:
        row: the input.
        scores: of its responses, from ScoreBatch.to_dicts. A row with several responses gets
            lists, any other gets single values.
    """
    if row.error is not None:
        return {**row.fields, "line": row.line, "status": "error", "error": row.error}
    if not row.several:
        return {**row.fields, "line": row.line, **scores[0]}
    keys = scores[0] if scores else SCORE_KEYS
    lists = {_PLURAL.get(name, name): [score[name] for score in scores] for name in keys}
    return {**row.fields, "line": row.line, **lists}


def carried(fields: Mapping[str, Any], reserved: Collection[str]) -> dict[str, Any]:
    """Return a row's fields under names that are free in the output.

    A field with a reserved name, such as the `reward` of a file that was scored before, becomes
    `input_reward`.

    Args:
        fields: of the row.
        reserved: names of the output's own fields.
    """
    kept = {}
    for name, value in fields.items():
        free = name
        while free in reserved or (free != name and free in fields):
            free = f"input_{free}"
        kept[free] = value
    return kept


def encode(fields: Mapping[str, Any]) -> tuple[str, bool]:
    """Return an output line, and whether it has null in place of a number that JSON cannot hold.

    Values of Parquet files that JSON cannot represent, such as dates, are written as strings.
    """
    try:
        return json.dumps(fields, allow_nan=False, default=str), False
    except ValueError:
        odd = json.dumps(fields, default=str)  # with NaN or Infinity in it
        return json.dumps(json.loads(odd, parse_constant=lambda _: None)), True
