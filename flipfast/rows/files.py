"""Rows of JSON Lines, JSON arrays and Parquet files, compressed or not."""

from __future__ import annotations

import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

from flipfast.errors import InputError, MissingDependencyError

STDIO = "-"
# One line of JSON as bytes, or a value that is parsed already; and its number from 1: its line,
# counting blank ones, or its place in an array or a Parquet file.
Numbered = tuple[int, Any]

Errors = tuple[type[Exception], ...]

_BROKEN: Errors = (OSError, EOFError, zlib.error)
_BOM = b"\xef\xbb\xbf"


@contextmanager
def open_rows(source: str | Path) -> Iterator[Iterator[Numbered]]:
    """Open a file and yield an iterator over its rows; blank lines are left out.

    Args:
        source: a path, or "-" for standard input. A suffix .parquet means Parquet; anything else is
            JSON Lines, or a JSON array if it begins with a bracket, compressed if the last suffix
            is .gz or .zst.

    Raises:
        InputError: the file cannot be read; also while the rows are read, after the good ones.
        MissingDependencyError: a package for the file's format is not installed.
    """
    path = Path(source)
    with ExitStack() as stack:
        if str(source) == STDIO:
            yield _rows(path, sys.stdin.buffer)  # not ours to close
        elif path.suffix == ".parquet":
            yield enumerate(_parquet_rows(stack, path), start=1)
        else:
            yield _rows(path, *_opened(stack, path))


def is_plain(path: Path) -> bool:
    """Return whether a file is JSON Lines, which can be read from any line on."""
    if path.suffix in (".parquet", ".gz", ".zst"):
        return False
    try:
        with path.open("rb") as file:
            first = next((line for line in file if line.strip()), b"")
    except OSError as error:
        raise _unreadable(path, error) from error
    return not _begins_array(first)


def count_rows(source: str) -> int | None:
    """Return the number of a file's last row, for a progress bar; None if that takes long."""
    path = Path(source)
    if not path.is_file():  # standard input or a pipe can be read only once
        return None
    if path.suffix == ".parquet":
        return int(parquet_file(path).metadata.num_rows)
    if not is_plain(path):
        return None
    with path.open("rb") as file:
        return sum(1 for _ in file)


def parquet_file(path: Path) -> Any:
    """Return a pyarrow.parquet.ParquetFile.

    Raises:
        InputError: it cannot be read.
        MissingDependencyError: pyarrow is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError(
            f"a Parquet file needs pyarrow ({error}): pip install 'flipfast[eval]'"
        ) from error
    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _parquet_rows(stack: ExitStack, path: Path) -> Iterator[Any]:
    file = stack.enter_context(parquet_file(path))

    def rows() -> Iterator[Any]:
        try:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error

    return rows()


def _opened(stack: ExitStack, path: Path) -> tuple[IO[bytes], Errors]:
    """Return a file's bytes as they were before compression, and what a broken file raises."""
    try:
        file: IO[bytes] = stack.enter_context(path.open("rb"))
    except OSError as error:
        raise _unreadable(path, error) from error
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(file)), _BROKEN
    if path.suffix == ".zst":
        zstd = _zstd(path)
        return zstd.open(file), (*_BROKEN, zstd.ZstdError)
    return file, _BROKEN


def _rows(path: Path, file: IO[bytes], broken: Errors = _BROKEN) -> Iterator[Numbered]:
    blank = b""
    try:
        lines = enumerate(file, start=1)
        for number, line in lines:
            if not line.strip():
                blank += line
            elif _begins_array(line):
                yield from _array(blank + line + file.read(), path)
                return
            else:
                yield number, line
                break
        yield from ((number, line) for number, line in lines if line.strip())
    except broken as error:
        raise _unreadable(path, error) from error


def _begins_array(line: bytes) -> bool:
    """Return whether a file with this first line holds an array; a row is an object."""
    return line.removeprefix(_BOM).lstrip().startswith(b"[")


def _array(data: bytes, path: Path) -> Iterator[Numbered]:
    """Yield the rows of a JSON array, or lines if it is none: the first of them was broken."""
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if ".json" in path.suffixes:
            raise InputError(f"cannot read {path}: not a JSON array: {error}") from error
        found = None
    if found is not None:
        yield from enumerate(found, start=1)
        return
    for number, line in enumerate(io.BytesIO(data), start=1):
        if line.strip():
            yield number, line


def _zstd(path: Path) -> Any:
    """Return the standard library's module, or the package that brings it to older Pythons."""
    try:
        from compression import zstd
    except ImportError:
        try:
            from backports import zstd
        except ImportError as error:
            raise MissingDependencyError(
                f"{path} needs backports.zstd ({error}): pip install backports.zstd, or use "
                "Python 3.14"
            ) from error
    return zstd


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}")
