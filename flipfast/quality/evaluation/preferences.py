"""Reads preferences from a file: instructions, each with better and worse responses."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flipfast.checks import brief
from flipfast.errors import InputError
from flipfast.quality.raters import Group
from flipfast.rows.files import open_rows
from flipfast.rows.forms import read_pair
from flipfast.rows.reading import parsed

ALL = "all"  # the subset of rows that do not name one
_FIELDS = "a row has prompt, chosen and rejected, and may have subset, id and context"


@dataclass(frozen=True)
class Preference:
    """An instruction with better and worse responses.

    Attributes:
        line: its line in the file, from 1.
        instruction: the true instruction.
        chosen: the better responses, at least one.
        rejected: the worse responses, at least one.
        subset: a name; "all" if the file gives none.
        id: its id in the file, or None.
        context: the conversation before the responses, or None.
    """

    line: int
    instruction: str
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    subset: str = ALL
    id: str | None = None
    context: str | None = None

    @property
    def group(self) -> Group:
        """All its responses, the chosen ones first."""
        return Group(self.instruction, self.chosen + self.rejected, self.context)


@dataclass(frozen=True)
class Preferences:
    """The contents of a file.

    Attributes:
        items: in the file's order.
        no_rejected: lines left out because they have no rejected response to compare with.
    """

    items: tuple[Preference, ...]
    no_rejected: tuple[int, ...] = ()

    def first(self, n: int) -> Preferences:
        """Keep only the first n items of each subset."""
        seen: Counter[str] = Counter()
        kept = []
        for item in self.items:
            seen[item.subset] += 1
            if seen[item.subset] <= n:
                kept.append(item)
        return Preferences(tuple(kept), self.no_rejected)


def read_preferences(
    path: str | Path, target: str = "instruction", *, tool_calls: bool = False
) -> Preferences:
    """Read preferences from a file.

    A row has a question in any of the forms of `flipfast.rows.forms`, usually `prompt` (a string,
    or messages whose last user turn is the instruction and whose earlier turns are the context),
    and `chosen` and `rejected`: each a string, a list of strings as in RewardBench 2, a message, or
    messages as in older sets, whose last assistant turn is the response. If a row with messages has
    no question, the turns before the response are it. `context`, `subset` and `id` are optional,
    and other fields are ignored; one file may mix rows of different shapes.

    Args:
        path: see `flipfast.rows.files.open_rows`.
        target: "instruction", or "system" to use the system prompt of messages instead.
        tool_calls: see FlipConfig.

    Raises:
        InputError: the file cannot be read; a row is invalid, incomplete, has a response without a
            text, or repeats an id of its subset; or no row can be compared.
        MissingDependencyError: a package for the file's format is not installed.
    """
    items, no_rejected = [], []
    lines_of: dict[tuple[str, str], int] = {}
    with open_rows(path) as rows:
        for line, raw in rows:
            try:
                item = _preference(parsed(raw), line, target, tool_calls)
                if item.id is not None:
                    _check_new(item, lines_of)
            except InputError as error:
                raise InputError(f"{path}, line {line}: {error}") from None
            if item.rejected:
                items.append(item)
            else:
                no_rejected.append(line)
    if not items:
        raise InputError(f"{path} holds no row with chosen and rejected responses: {_FIELDS}")
    return Preferences(tuple(items), tuple(no_rejected))


def _preference(fields: dict[str, Any], line: int, target: str, tool_calls: bool) -> Preference:
    (instruction, context), chosen, rejected = read_pair(fields, target, tool_calls)
    return Preference(
        line,
        instruction,
        chosen,
        rejected,
        subset=_name(fields, "subset") or ALL,
        id=_name(fields, "id"),
        context=context,
    )


def _name(fields: dict[str, Any], field: str) -> str | None:
    value = fields.get(field)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise InputError(f"{field} must be a string or a whole number, got {brief(value)}")


def _check_new(item: Preference, lines_of: dict[tuple[str, str], int]) -> None:
    first = lines_of.setdefault((item.subset, str(item.id)), item.line)
    if first != item.line:
        raise InputError(
            f"the id {item.id!r} is that of line {first}, too: give each row of a subset its own"
        )
