"""Cuts files of rows into the parts of a long run."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from flipfast.config import FlipConfig
from flipfast.errors import InputError
from flipfast.rows import InputRow, open_rows, read_row
from flipfast.rows.files import is_plain, parquet_file

_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Part:
    """Consecutive rows of a file, and the file for their scores.

    Attributes:
        source: the file.
        out: where the scores go.
        first: number of the first row, from 1; in a JSONL file its line, counting blank ones.
        n_rows: number of rows, or lines.
        offset: position of the first line in a JSONL file, in bytes.
    """

    source: str
    out: str
    first: int
    n_rows: int
    offset: int = 0

    def rows(self, config: FlipConfig) -> list[InputRow]:
        """Read the rows; see `flipfast.rows` for malformed ones."""
        return [
            read_row(raw, number, config.target, config.tool_calls)
            for number, raw in self._numbered()
        ]

    def _numbered(self) -> Iterator[tuple[int, Any]]:
        path, end = Path(self.source), self.first + self.n_rows
        if path.suffix == ".parquet":
            yield from enumerate(_parquet_rows(self), start=self.first)
        elif is_plain(path):
            with open(path, "rb") as file:
                file.seek(self.offset)
                lines = enumerate(islice(file, self.n_rows), start=self.first)
                yield from ((number, line) for number, line in lines if line.strip())
        else:  # can be read only from its beginning
            with open_rows(path) as rows:
                for number, raw in takewhile(lambda row: row[0] < end, rows):
                    if number >= self.first:
                        yield number, raw


def find_files(source: str) -> dict[str, Path]:
    """Find the files of a folder, or a single file, keyed by their paths below the folder.

    Raises:
        InputError: there is none.
    """
    path = Path(source)
    if path.is_file():
        return {path.name: path.absolute()}
    found = sorted(
        file for file in path.rglob("*") if file.name.endswith(_SUFFIXES) and file.is_file()
    )
    if not found:
        raise InputError(f"{source} is no file and no folder with {', '.join(_SUFFIXES)} files")
    return {file.relative_to(path).as_posix(): file.absolute() for file in found}


def cut(name: str, file: Path, out: Path, rows_a_part: int) -> tuple[str, list[Part]]:
    """Read a whole file and cut it into parts.

    Args:
        name: name of its folder below `out`.
        file: see `open_rows`.
        out: the output folder.
        rows_a_part: rows, or lines, per part.

    Returns:
        A digest of the file's content, and its parts.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        if file.suffix == ".parquet":
            n_rows = parquet_file(file).metadata.num_rows
            digest, starts = _digest(file), [(n, 0) for n in _sizes(n_rows, rows_a_part)]
        elif is_plain(file):
            digest, starts = _jsonl_starts(file, rows_a_part)
        else:
            with open_rows(file) as rows:
                n_rows = max((number for number, _ in rows), default=0)
            digest, starts = _digest(file), [(n, 0) for n in _sizes(n_rows, rows_a_part)]
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {file}: {error}") from error
    parts = [
        Part(str(file), str(out / name / f"part-{i:06d}.jsonl"), 1 + i * rows_a_part, n, offset)
        for i, (n, offset) in enumerate(starts)
    ]
    return digest, parts


def write_whole(path: Path, text: str) -> None:
    """Write a file atomically: it is never seen half-written, even after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _jsonl_starts(file: Path, rows_a_part: int) -> tuple[str, list[tuple[int, int]]]:
    digest, starts, offset, n_lines = hashlib.blake2b(), [], 0, 0
    with file.open("rb") as lines:
        for line in lines:
            if n_lines % rows_a_part == 0:
                starts.append(offset)
            n_lines += 1
            offset += len(line)
            digest.update(line)
    return digest.hexdigest(), list(zip(_sizes(n_lines, rows_a_part), starts, strict=True))


def _sizes(n: int, size: int) -> list[int]:
    return [min(size, n - start) for start in range(0, n, size)]


def _digest(file: Path) -> str:
    digest = hashlib.blake2b()
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _parquet_rows(part: Part) -> Iterator[dict[str, Any]]:
    """Yield the rows as dicts."""
    file = parquet_file(Path(part.source))
    end, at, groups = part.first - 1 + part.n_rows, 0, []
    skipped = 0
    for group in range(file.metadata.num_row_groups):  # read only those with rows of the part
        n = file.metadata.row_group(group).num_rows
        if at < end and at + n > part.first - 1:
            groups.append(group)
        elif not groups:
            skipped += n
        at += n
    batches = file.iter_batches(batch_size=part.n_rows, row_groups=groups)
    rows = (row for batch in batches for row in batch.to_pylist())
    yield from islice(rows, part.first - 1 - skipped, end - skipped)
