"""Streams rows from one JSONL file to another, in chunks and in order."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flipfast.errors import ConfigError, InputError
from flipfast.rows import InputRow, read_row

_RESPONSES_A_CHUNK = 128
_STDIO = "-"

Work = Callable[[Sequence[InputRow]], list[dict[str, Any]]]


class RowStream:
    """The input and output of a run; a context manager that keeps the input open.

    Args:
        source: path of a JSONL file, or "-".
        out: path of the file to write, or "-".
        resume: keep the rows that `out` already holds and continue after them.
        overwrite: replace `out`.
        console: for progress and for errors in malformed lines.

    Raises:
        InputError: `source` cannot be read, or `out` was not written by flipfast.
        ConfigError: options exclude each other, or `out` is not empty.
    """

    def __init__(
        self, source: str, out: str, *, resume: bool, overwrite: bool, console: Console
    ) -> None:
        self._source, self._out, self._resume = source, out, resume
        self._console = console
        self._last_row = _last_row(out, resume=resume, overwrite=overwrite)
        self._stack = ExitStack()

    def __enter__(self) -> RowStream:
        self._lines = self._stack.enter_context(_open_input(self._source))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, target: str, work: Work) -> Iterator[dict[str, Any]]:
        """Process the rows chunk by chunk with `work`; write and yield its results.

        Args:
            target: of FlipConfig: which part of `messages` is the instruction.
            work: returns the fields to write for each row of a chunk, including malformed ones.

        Raises:
            InputError: `out` cannot be written, or belongs to another input.
        """
        done = self._last_row["line"] if self._last_row else 0
        rows = _unfinished(_read_rows(self._lines, target), self._last_row, self._out)
        n_lines = _count_lines(self._source)
        opened = _open_output(self._out, resume=self._resume)
        with opened as sink, progress_bar(self._console) as bar:
            task = bar.add_task("rows", total=n_lines, completed=done)
            for chunk in _chunks(rows):
                for row, fields in zip(chunk, work(chunk), strict=True):
                    sink.write(json.dumps(fields) + "\n")
                    self._report(row)
                    yield fields
                sink.flush()
                bar.update(task, completed=chunk[-1].line)

    def _report(self, row: InputRow) -> None:
        if row.error is not None:
            text = f"line {row.line}: {row.error}"
            self._console.print(text, style="yellow", markup=False, soft_wrap=True)


def _last_row(out: str, *, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    """Return the last finished row of `out`, and truncate a partly written one after it."""
    if resume and (overwrite or out == _STDIO):
        raise ConfigError("--resume goes with a file as --out, and without --overwrite")
    path = Path(out)
    if out == _STDIO or overwrite or not path.exists() or path.stat().st_size == 0:
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
        elif row.line == last_row["line"] and not row.fields.items() <= last_row.items():
            raise InputError(f"line {row.line} of the input is not the one in {out}: other files?")


def _read_rows(lines: Iterable[bytes], target: str) -> Iterator[InputRow]:
    for number, raw in enumerate(lines, start=1):
        if raw.strip():
            yield read_row(raw, number, target)


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


def _open_input(source: str) -> AbstractContextManager[IO[bytes]]:
    if source == _STDIO:
        return nullcontext(sys.stdin.buffer)  # not ours to close
    try:
        return open(source, "rb")
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}") from error


def _count_lines(source: str) -> int | None:
    if not Path(source).is_file():  # standard input or a pipe can be read only once
        return None
    with open(source, "rb") as file:
        return sum(1 for _ in file)


def _open_output(out: str, *, resume: bool) -> AbstractContextManager[IO[str]]:
    if out == _STDIO:
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
