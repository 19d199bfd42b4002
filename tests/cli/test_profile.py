"""`flipfast profile` with the embedded model."""

import json

import pytest

from flipfast.cli import main
from flipfast.profiling import runs
from flipfast.profiling.recorder import Rates


@pytest.fixture(autouse=True)
def _rates(monkeypatch):
    """Of no device: to measure them takes long where it has no such product."""
    monkeypatch.setattr(runs, "measure_rates", lambda *_: Rates(1e10, 1e11))


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.jsonl"
    row = {"instruction": "Name a river.", "responses": ["Ebro", "Bread is made of flour."]}
    path.write_text(json.dumps(row))
    return str(path)


def test_a_table_and_a_trace(source, tmp_path, capsys):
    trace = tmp_path / "trace.json"
    options = ["--input", source, "--out", str(trace), "--max-new-tokens", "3", "--device", "cpu"]
    assert main(["profile", *options]) == 0
    shown = capsys.readouterr().out
    for word in ("attention", "product", "prompts", "word F1", "of the", "2 rewards", "GB/s"):
        assert word in shown
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert {"attention", "norm_rope_write", "step, rest", "prompts", "parsing", "word F1"} <= names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "/none.jsonl"], "cannot read /none.jsonl"),
        (["--device", "neither"], "unknown device 'neither'"),
    ],
)
def test_wrong_use(options, message, capsys):
    assert main(["profile", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_trace_that_cannot_be_written(source, capsys):
    assert main(["profile", "--input", source, "--max-new-tokens", "2", "--out", "/none/x"]) == 2
    assert "cannot write /none/x" in capsys.readouterr().err
