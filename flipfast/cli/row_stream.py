"""Streams rows from a file to a JSONL file, in chunks and in order."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flipfast.config import FlipConfig
from flipfast.errors import ConfigError, InputError
from flipfast.rows import InputRow, carried, encode, open_rows, read_row
from flipfast.rows.files import STDIO, count_rows
from flipfast.scores import CONTENTLESS

_RESPONSES_A_CHUNK = 128
NOT_RUN = frozenset({"error", CONTENTLESS})  # the statuses of rows that reach no model

Work = Callable[[Sequence[InputRow]], list[dict[str, Any]]]


class RowStream:
    """The input and output of a run; a context manager that keeps the input open.

    Args:
        source: see `open_rows`.
        out: path of the file to write, or "-".
        resume: keep the rows that `out` already holds and continue after them.
        overwrite: replace `out`.
        reserved: names of the output's own fields: a field of the input with one is renamed.
        console: for progress, for errors in malformed lines, and for what is changed in fields.

    Raises:
        InputError: `source` cannot be read, or `out` was not written by flipfast.
        ConfigError: options exclude each other, or `out` is not empty.
    """

    def __init__(
        self,
        source: str,
        out: str,
        *,
        resume: bool,
        overwrite: bool,
        reserved: Collection[str],
        console: Console,
    ) -> None:
        self._source, self._out, self._resume = source, out, resume
        self._reserved, self._console = reserved, console
        self._last_row = _last_row(out, resume=resume, overwrite=overwrite)
        self._stack = ExitStack()
        self._told: set[str] = set()  # of the changes that are named only once
        self._ran = self._last_row is not None
        self._first_error: str | None = None

    def __enter__(self) -> RowStream:
        self._rows = self._stack.enter_context(open_rows(self._source))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, config: FlipConfig, work: Work) -> Iterator[dict[str, Any]]:
        """Process the rows chunk by chunk with `work`; write and yield its results.

        Args:
            config: how rows are read.
            work: returns the fields to write for each row of a chunk, including malformed ones.

        Raises:
            InputError: `out` cannot be written, or belongs to another input.
        """
        done = self._last_row["line"] if self._last_row else 0
        rows = _unfinished(self._read_rows(config), self._last_row, self._out)
        n_rows = count_rows(self._source)
        opened = _open_output(self._out, resume=self._resume)
        with opened as sink, progress_bar(self._console) as bar:
            task = bar.add_task("rows", total=n_rows, completed=done)
            for chunk in _chunks(rows):
                for row, fields in zip(chunk, work(chunk), strict=True):
                    sink.write(self._encoded(fields) + "\n")
                    self._report(row, fields)
                    yield fields
                sink.flush()
                bar.update(task, completed=chunk[-1].line)

    def check_scored(self) -> None:
        """Check, after the run, that there was anything in the input that could be scored.

        Raises:
            InputError: every row was malformed or without a text.
        """
        if self._first_error is not None and not self._ran:
            raise InputError(f"no row of {self._source} could be scored; {self._first_error}")

    def _read_rows(self, config: FlipConfig) -> Iterator[InputRow]:
        for number, raw in self._rows:
            row = read_row(raw, number, config.target, config.tool_calls)
            fields = carried(row.fields, self._reserved)
            for old, new in zip(row.fields, fields, strict=True):
                if old != new:
                    self._tell(f"the input's field {old} is kept as {new}: {old} is the output's")
            yield replace(row, fields=fields)

    def _encoded(self, fields: dict[str, Any]) -> str:
        text, odd = encode(fields)
        if odd:
            self._tell("numbers that JSON cannot hold, NaN or infinite, are written as null")
        return text

    def _report(self, row: InputRow, fields: dict[str, Any]) -> None:
        lists = "statuses" in self._reserved and "statuses" in fields
        statuses = fields["statuses" if lists else "status"]
        self._ran |= not NOT_RUN.issuperset([statuses] if isinstance(statuses, str) else statuses)
        errors = fields["errors"] if "errors" in fields else [fields.get("error")]
        error = next(filter(None, errors), None)
        if error is not None and self._first_error is None:
            self._first_error = f"line {row.line}: {error}"
        lacks = [one for one in row.responses if not isinstance(one, str)]
        for found in lacks if row.error is None else [row.error]:
            self._say(f"line {row.line}: {found}")

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._say(text)

    def _say(self, text: str) -> None:
        self._console.print(text, style="yellow", markup=False, soft_wrap=True)


def _last_row(out: str, *, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    """Return the last finished row of `out`, and truncate a partly written one after it."""
    if resume and (overwrite or out == STDIO):
        raise ConfigError("--resume goes with a file as --out, and without --overwrite")
    path = Path(out)
    if out == STDIO or overwrite or not path.exists() or path.stat().st_size == 0:
        return None
    if not resume:
        raise ConfigError(f"{out} holds something already: give --resume to go on, or --overwrite")
    last, end = b"", 0
    with path.open("rb+") as file:
        for line in file:
            if line.endswith(b"\n"):
                last, end = line, end + len(line)
        file.truncate(end)
    if not last:
        return None
    try:
        row = json.loads(last)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("line"), int):
        raise InputError(f"{out} was not written by flipfast: {last[:60]!r}")
    return row


def _unfinished(
    rows: Iterator[InputRow], last_row: dict[str, Any] | None, out: str
) -> Iterator[InputRow]:
    """Skip the rows that `out` holds, and check that it belongs to this input."""
    for row in rows:
        if last_row is None or row.line > last_row["line"]:
            yield row
        elif row.line == last_row["line"] and not _written(row).items() <= last_row.items():
            raise InputError(f"line {row.line} of the input is not the one in {out}: other files?")


def _written(row: InputRow) -> dict[str, Any]:
    """Return a row's fields as they are read from an output."""
    fields: dict[str, Any] = json.loads(encode(row.fields)[0])
    return fields


def _chunks(rows: Iterable[InputRow]) -> Iterator[list[InputRow]]:
    chunk: list[InputRow] = []
    n_responses = 0
    for row in rows:
        chunk.append(row)
        n_responses += max(1, len(row.responses))  # malformed lines fill a chunk too
        if n_responses >= _RESPONSES_A_CHUNK:
            yield chunk
            chunk, n_responses = [], 0
    if chunk:
        yield chunk


def _open_output(out: str, *, resume: bool) -> AbstractContextManager[IO[str]]:
    if out == STDIO:
        return nullcontext(sys.stdout)
    try:
        return open(out, "a" if resume else "w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from error


def progress_bar(console: Console) -> Progress:
    """Return a progress bar, shown only on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )
