"""Reads preferences from a file: instructions, each with better and worse responses."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flipfast.checks import as_string_or_none, brief, field_found, named
from flipfast.errors import InputError, MissingDependencyError
from flipfast.prompts.conversation import completion_text, split_prompt
from flipfast.quality.raters import Group

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


def read_preferences(path: str | Path, target: str = "instruction") -> Preferences:
    """Read preferences from JSON Lines, gzipped or not, or from Parquet.

    A row has `prompt` (a string, or messages whose last user turn is the instruction and whose
    earlier turns are the context), `chosen` and `rejected`: each a string, a list of strings as in
    RewardBench 2, or messages as in older sets, whose last assistant turn is the response. If a row
    with messages has no `prompt`, the turns before the response are the prompt. `context`, `subset`
    and `id` are optional, and other fields are ignored; one file may mix rows of different shapes.

    Args:
        path: its suffix determines the format: .parquet, .gz, anything else is JSON Lines.
        target: "instruction", or "system" to use the system prompt of messages instead.

    Raises:
        InputError: the file cannot be read; a row is invalid, incomplete, or repeats an id of its
            subset; or no row can be compared.
        MissingDependencyError: the file is Parquet and pyarrow is not installed.
    """
    items, no_rejected = [], []
    lines_of: dict[tuple[str, str], int] = {}
    for line, fields in _rows(Path(path)):
        try:
            item = _preference(fields, line, target)
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


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    if path.suffix == ".parquet":
        yield from enumerate(_parquet_rows(path), start=1)
        return
    try:
        data = path.read_bytes()
        lines = (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: not a whole gzip file ({error})") from error
    for line, raw in enumerate(lines, start=1):
        if raw.strip():
            try:
                fields = json.loads(raw.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, line {line}: not JSON: {error}") from error
            yield line, fields


def _parquet_rows(path: Path) -> list[Any]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError(
            f"a Parquet file needs pyarrow ({error}): pip install 'flipfast[eval]'"
        ) from error
    try:
        rows: list[Any] = parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    return rows


def _preference(fields: Any, line: int, target: str) -> Preference:
    if not isinstance(fields, dict):
        raise InputError(f"not an object but {brief(fields)}: {_FIELDS}")
    chosen = _candidates(fields, "chosen")
    if not chosen:
        raise InputError(f"no chosen response: {field_found(fields, 'chosen')}; {_FIELDS}")
    rejected = _candidates(fields, "rejected")
    better, worse = _texts("chosen", chosen), _texts("rejected", rejected)
    instruction, context = _asked(fields, [*chosen, *rejected], target)
    return Preference(
        line,
        instruction,
        better,
        worse,
        subset=_name(fields, "subset") or ALL,
        id=_name(fields, "id"),
        context=context,
    )


def _candidates(fields: dict[str, Any], name: str) -> list[Any]:
    """Return the responses of a field, each a string or a list of messages."""
    value = fields.get(name)
    if value is None:
        return []
    if isinstance(value, str) or _is_conversation(value):
        return [value]
    if not isinstance(value, list):
        raise InputError(f"{name} must be a string, messages or a list of such, got {brief(value)}")
    for at, one in enumerate(value):
        if not isinstance(one, str) and not _is_conversation(one):
            raise InputError(f"{name}[{at}] must be a string or messages, got {brief(one)}")
    return value


def _is_conversation(value: Any) -> bool:
    """Return whether a value is meant as a conversation; only its first message is checked."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _texts(name: str, candidates: list[Any]) -> tuple[str, ...]:
    with named(name):
        return tuple(map(completion_text, candidates))


def _asked(fields: dict[str, Any], candidates: list[Any], target: str) -> tuple[str, str | None]:
    """Return a row's instruction and context."""
    context = as_string_or_none(fields.get("context"), "context")
    prompt = fields.get("prompt")
    if prompt is not None:
        with named("prompt"):
            instruction, earlier = split_prompt(prompt, target)
    else:
        if any(isinstance(candidate, str) for candidate in candidates):
            raise InputError(f"{field_found(fields, 'prompt')}: {_FIELDS}")
        with named("no prompt, and before the response"):
            found = {split_prompt(_before_response(one), target) for one in candidates}
        if len(found) > 1:
            raise InputError("no prompt, and the responses answer different ones: give the prompt")
        instruction, earlier = found.pop()
    return instruction, earlier if context is None else context


def _before_response(messages: list[Any]) -> list[Any]:
    """Return the turns before the last assistant turn."""
    last = max((i for i, one in enumerate(messages) if one.get("role") == "assistant"), default=0)
    return messages[:last]


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
