"""What is kept of a run."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("pytest_benchmark")

from bench.results import FILE, read, store

BENCH = """
def bench_sum(benchmark):
    benchmark(sum, (1, 2))
    benchmark.extra_info["tokens_per_s"] = 3
"""


def content(*names, skipped=()):
    rows = [
        {"fullname": name, "name": name, "stats": {"min": 1.0, "data": [1.0]}, "extra_info": {}}
        for name in names
    ]
    return {"benchmarks": rows, "skipped": list(skipped), "version": "5.3"}


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def test_parts_are_merged_and_raw_timings_dropped(tmp_path):
    parts = [
        write(tmp_path / "a.json", content("x", "y", skipped=[{"name": "peer"}])),
        write(tmp_path / "b.json", content("y", "z")),
    ]
    path = store(parts, tmp_path / "results/some-device")
    assert path == tmp_path / "results/some-device" / FILE
    found = json.loads(path.read_text())
    assert [row["fullname"] for row in found["benchmarks"]] == ["x", "y", "z"]
    assert all(row["stats"] == {"min": 1.0} for row in found["benchmarks"])
    assert found["skipped"] == [{"name": "peer"}]
    assert {"device", "date", "versions", "version"} <= set(found)
    assert "torch" in found["versions"]


def test_a_run_on_another_machine_keeps_its_conditions(tmp_path):
    other = {"device": "Test GPU 9", "date": "2026-01-02", "versions": {"commit": "abc"}}
    here = store([write(tmp_path / "a.json", content("x"))], tmp_path / "here")
    there = write(tmp_path / "b.json", {**content("y"), **other})
    kept = json.loads(store([here, there], tmp_path / "kept").read_text())
    assert {key: kept[key] for key in other} == other
    assert [row["name"] for row in kept["benchmarks"]] == ["x", "y"]


def test_what_is_stored_can_be_stored_again(tmp_path):
    first = store([write(tmp_path / "a.json", content("x"))], tmp_path / "one")
    second = store([first], tmp_path / "two")
    assert first.read_text() == second.read_text()


def test_broken_parts_lose_nothing_else(tmp_path):
    (tmp_path / "half.json").write_text('{"bench')
    whole = write(tmp_path / "a.json", content("x"))
    parts = [tmp_path / "none.json", tmp_path / "half.json", whole]
    assert [row["name"] for row in read(store(parts, tmp_path))["benchmarks"]] == ["x"]
    assert read(store(parts[:2], tmp_path))["benchmarks"] == []


@pytest.mark.slow
def test_a_stored_run_compares_with_pytest_benchmark(tmp_path, monkeypatch, capsys):
    """Its own command reads what is stored."""
    cli = pytest.importorskip("pytest_benchmark.cli")
    (tmp_path / "bench_it.py").write_text(BENCH)
    options = ["-p", "pytest_benchmark.plugin", "-o", "python_functions=bench_*", "bench_it.py"]
    raw = ["--benchmark-json=raw.json", "--benchmark-max-time=0.01"]
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", *options, *raw]
    subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True)
    old, new = (str(store([tmp_path / "raw.json"], tmp_path / name)) for name in ("old", "new"))
    monkeypatch.setattr(sys, "argv", ["pytest-benchmark", "compare", old, new])
    cli.main()
    assert capsys.readouterr().out.count("bench_sum") == 2
