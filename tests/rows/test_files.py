"""Rows of files: every format gives the same rows; a broken file says so after its good ones."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from flipfast.errors import InputError, MissingDependencyError
from flipfast.rows import open_rows
from flipfast.rows.files import count_rows
from flipfast.rows.reading import parsed

ROWS = [
    {"instruction": "Name a river", "response": "Ebro"},
    {"a": [1.5, None, "é\u2028"]},
    {"b": {}},
]
LINES = b"\n".join(json.dumps(row, ensure_ascii=False).encode() for row in ROWS)
ARRAY = json.dumps(ROWS, indent=1).encode()


def rows_of(path: Any) -> list[tuple[int, Any]]:
    with open_rows(path) as rows:
        return [(number, parsed(raw)) for number, raw in rows]


def zstd(data: bytes) -> bytes:
    new = sys.version_info >= (3, 14)
    module = pytest.importorskip("compression.zstd" if new else "backports.zstd")
    return bytes(module.compress(data))


def written(path: Path, data: bytes) -> Path:
    if path.suffix == ".gz":
        data = gzip.compress(data[:50]) + gzip.compress(data[50:])
    if path.suffix == ".zst":
        data = zstd(data[:50]) + zstd(b"") + zstd(data[50:])
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("in.jsonl", LINES),
        ("in.json", LINES),
        ("in.txt", b"\xef\xbb\xbf" + LINES + b"\r\n \n"),
        ("in.json", ARRAY),
        ("in.jsonl", b"\n \n" + ARRAY),
        ("in.json", b"\xef\xbb\xbf  [" + b",".join(LINES.split(b"\n")) + b"]"),
    ],
)
def test_lines_and_arrays(tmp_path: Path, name: str, data: bytes, packed: str) -> None:
    path = written(tmp_path / f"{name}{packed}", data)
    assert rows_of(path) == list(enumerate(ROWS, start=1))
    plain = not packed and not data.endswith(b"]")
    assert count_rows(str(path)) == (len(data.splitlines()) if plain else None)


def test_numbers_count_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n\n" + LINES.replace(b"\n", b"\n \r\n"))
    assert [number for number, _ in rows_of(path)] == [3, 5, 7]


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "in.parquet"
    rows = [{"instruction": "x", "response": None}, {"instruction": None, "response": "y"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert rows_of(path) == list(enumerate(rows, start=1))
    assert count_rows(str(path)) == 2
    path.write_bytes(b"PAR1 but no more")
    with pytest.raises(InputError, match=r"cannot read .*in\.parquet"):
        rows_of(path)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (LINES, ARRAY):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert rows_of("-") == list(enumerate(ROWS, start=1))
    assert count_rows("-") is None


def test_a_first_line_with_a_list_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"[1, 2]\n\n" + LINES)
    with open_rows(path) as rows:
        found = list(rows)
    assert found[0] == (1, b"[1, 2]\n")
    assert [(number, parsed(raw)) for number, raw in found[1:]] == list(enumerate(ROWS, start=3))


@pytest.mark.parametrize("data", [ARRAY[:-3], b"[" * 100_000])
def test_an_array_that_is_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "in.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"cannot read .*in\.json: not a JSON array"):
        rows_of(path)


@pytest.mark.parametrize("packed", [".gz", ".zst"])
@pytest.mark.parametrize("kept", [0, 10, -9])
def test_a_broken_file_gives_its_rows_first(tmp_path: Path, packed: str, kept: int) -> None:
    """Many rows, so that some come before the end that is missing."""
    data = b"".join(b'{"n": %d}\n' % (number * 7919 % 100_003) for number in range(100_000))
    path = tmp_path / f"in.jsonl{packed}"
    whole = gzip.compress(data, mtime=0) if packed == ".gz" else zstd(data)
    path.write_bytes(whole[:kept] or b"not compressed at all")
    found = []
    with pytest.raises(InputError, match=r"cannot read .*in\.jsonl"), open_rows(path) as rows:
        found.extend(number for number, _ in rows)
    assert (len(found) > 1000) == (kept == -9)


@pytest.mark.parametrize(
    ("name", "missing"), [("in.jsonl.zst", "backports"), ("in.parquet", "pyarrow")]
)
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setitem(sys.modules, "compression", None)
    path = tmp_path / name
    path.write_bytes(b"")
    with pytest.raises(MissingDependencyError, match="pip install"):
        rows_of(path)
