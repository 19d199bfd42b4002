"""Cuts files of rows into the parts of a long run."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from flipfast.errors import InputError, MissingDependencyError
from flipfast.rows import InputRow, read_row, row_of

_SUFFIXES = (".jsonl", ".parquet")
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

    def rows(self, target: str) -> list[InputRow]:
        """Read the rows; see `flipfast.rows` for malformed ones."""
        if self.source.endswith(".parquet"):
            numbered = enumerate(_parquet_rows(self), start=self.first)
            return [row_of(fields, number, target) for number, fields in numbered]
        with open(self.source, "rb") as file:
            file.seek(self.offset)
            lines = list(islice(file, self.n_rows))
        numbered_lines = enumerate(lines, start=self.first)
        return [read_row(line, number, target) for number, line in numbered_lines if line.strip()]


def find_files(source: str) -> dict[str, Path]:
    """Find the files of a folder, or a single file, keyed by their paths below the folder.

    Raises:
        InputError: there is none.
    """
    path = Path(source)
    if path.is_file():
        return {path.name: path.absolute()}
    found = sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
    if not found:
        raise InputError(f"{source} is no file and no folder with {' or '.join(_SUFFIXES)} files")
    return {file.relative_to(path).as_posix(): file.absolute() for file in found}


def cut(name: str, file: Path, out: Path, rows_a_part: int) -> tuple[str, list[Part]]:
    """Read a whole file and cut it into parts.

    Args:
        name: name of its folder below `out`.
        file: a Parquet file if it ends in .parquet, else lines of JSON.
        out: the output folder.
        rows_a_part: rows, or lines, per part.

    Returns:
        A digest of the file's content, and its parts.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        if file.suffix == ".parquet":
            digest, starts = _digest(file), _parquet_starts(file, rows_a_part)
        else:
            digest, starts = _jsonl_starts(file, rows_a_part)
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


def _parquet_starts(file: Path, rows_a_part: int) -> list[tuple[int, int]]:
    n_rows = _parquet(file).metadata.num_rows
    return [(n, 0) for n in _sizes(n_rows, rows_a_part)]


def _sizes(n: int, size: int) -> list[int]:
    return [min(size, n - start) for start in range(0, n, size)]


def _digest(file: Path) -> str:
    digest = hashlib.blake2b()
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _parquet_rows(part: Part) -> Iterator[dict[str, Any]]:
    """Yield the rows as dicts, without the fields that are null."""
    file = _parquet(Path(part.source))
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
    for row in islice(rows, part.first - 1 - skipped, end - skipped):
        yield {name: value for name, value in row.items() if value is not None}


def _parquet(file: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError(
            f"a Parquet file needs pyarrow ({error}): pip install 'flipfast[ray]'"
        ) from error
    return parquet.ParquetFile(file)
