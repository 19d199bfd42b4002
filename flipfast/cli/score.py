"""`flipfast score`: a JSONL file in, the same rows with their scores out."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flipfast.errors import ConfigError, InputError
from flipfast.reward import FlipReward
from flipfast.rows import InputRow, read_row, score_rows, scored_fields

_RESPONSES_A_CHUNK = 128
_STDIO = "-"


def score_file(
    source: str, out: str, *, resume: bool, overwrite: bool, options: dict[str, Any]
) -> None:
    """Score the rows of `source` and write them to `out`, in order, as they are finished.

    Args:
        source: path of a JSONL file, or "-".
        out: path of the file to write, or "-".
        resume: keep the rows that `out` already holds and go on behind them.
        overwrite: replace `out`.
        options: of FlipConfig.

    Raises:
        InputError: `source` cannot be read, or `out` does not go with it.
        ConfigError: options that exclude each other, or that the reward refuses.
    """
    last_row = _last_row(out, resume=resume, overwrite=overwrite)
    console = Console(stderr=True, highlight=False)
    with ExitStack() as stack:
        lines = stack.enter_context(_open_input(source))
        n_lines = _count_lines(source)
        reward = FlipReward(**options)
        rows = _unfinished(_read_rows(lines, reward.config.target), last_row, out)
        sink = stack.enter_context(_open_output(out, resume=resume))
        bar = stack.enter_context(progress_bar(console))
        task = bar.add_task("rows", total=n_lines, completed=last_row["line"] if last_row else 0)
        statuses: Counter[str] = Counter()
        for chunk in _chunks(rows):
            for row, scores in zip(chunk, score_rows(reward, chunk), strict=True):
                fields = scored_fields(row, scores)
                sink.write(json.dumps(fields) + "\n")
                status = fields["status"]
                statuses.update([status] if isinstance(status, str) else status)
                if row.error is not None:
                    console.print(
                        f"line {row.line}: {row.error}",
                        style="yellow",
                        markup=False,
                        soft_wrap=True,
                    )
            sink.flush()
            bar.update(task, completed=chunk[-1].line)
    shown = ", ".join(f"{n} {status}" for status, n in statuses.most_common())
    console.print(f"scored: {shown or 'nothing'}", markup=False, soft_wrap=True)


def _last_row(out: str, *, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    """The last finished row of `out`; what was written of an unfinished one is cut off."""
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
        raise InputError(f"{out} was not written by flipfast score: {last[:60]!r}")
    return row


def _unfinished(
    rows: Iterator[InputRow], last_row: dict[str, Any] | None, out: str
) -> Iterator[InputRow]:
    """Skip what `out` holds, and make sure that it belongs to this input."""
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
        n_responses += len(row.responses)
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
    if not Path(source).is_file():  # standard input, or a pipe: it can be read only once
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
    """A bar on a terminal; nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )
