"""`make gpu-bench` with commands that stand in for its parts."""

import json
import sys

import pytest
import torch

pytest.importorskip("pytest_benchmark")

from bench import gpu_bench
from bench.gpu_check import ROOT, TOTAL_S, Part, kernel_sources
from bench.results import read

pytestmark = pytest.mark.slow

BENCH = """
import os, signal, time

def bench_first(benchmark):
    benchmark(sum, (1, 2))
    benchmark.extra_info["tokens_per_s"] = 3

def bench_second(benchmark):
    os.kill(os.getpid(), signal.SIGINT)  # the limit is over
    benchmark(time.sleep, 60)

def bench_third(benchmark):
    benchmark(time.sleep, 60)
"""


def writing(path, *names, then=""):
    rows = [{"fullname": x, "name": x, "stats": {"data": [1], "min": 1}} for x in names]
    content = json.dumps({"benchmarks": rows, "datetime": "2026-01-01", "machine_info": {}})
    return [sys.executable, "-c", f"open({str(path)!r}, 'w').write({content!r})\n{then}"]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs made-up parts on a made-up device: functions from a result file to a command."""

    def run(**commands):
        def parts(scratch, *, kernels):
            for name, command in commands.items():
                yield Part(name, command(gpu_bench.raw_of(scratch, name)), 300.0)

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(gpu_bench, "device_folder", lambda: "test-gpu-9")
        monkeypatch.setattr(gpu_bench, "parts", parts)
        monkeypatch.setattr("bench.results.device_name", lambda device: "Test GPU 9")
        code = gpu_bench.main([f"--results={tmp_path}"])
        return code, read(tmp_path / "test-gpu-9" / "benchmarks.json")

    return run


def names(found):
    return [row["name"] for row in found["benchmarks"]]


def test_parts_are_stored_as_one(run):
    code, found = run(one=lambda raw: writing(raw, "a", "b"), two=lambda raw: writing(raw, "c"))
    assert (code, names(found), found["skipped"]) == (0, ["a", "b", "c"], [])
    assert found["device"] == "Test GPU 9"
    assert found["datetime"] == "2026-01-01"
    assert "data" not in found["benchmarks"][0]["stats"]


def test_a_part_that_fails_keeps_what_it_wrote_and_loses_no_other(run):
    code, found = run(
        one=lambda raw: writing(raw, "a", then="raise SystemExit(1)"),
        two=lambda raw: [sys.executable, "-c", "raise SystemExit('broken')"],
        three=lambda raw: writing(raw, "c"),
    )
    assert (code, names(found)) == (1, ["a", "c"])
    assert [row["name"] for row in found["skipped"]] == ["one", "two"]
    assert found["skipped"][1]["reason"].startswith("failed after")


def test_without_any_figure_an_older_run_stays(run, tmp_path):
    older = tmp_path / "test-gpu-9" / "benchmarks.json"
    older.parent.mkdir()
    older.write_text('{"benchmarks": [], "date": "before"}')
    code, found = run(one=lambda raw: [sys.executable, "-c", "raise SystemExit('broken')"])
    assert (code, found["date"]) == (1, "before")


def test_pytest_writes_what_it_has_when_it_is_stopped(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (tmp_path / "bench_it.py").write_text(BENCH)
    options = ["-p", "pytest_benchmark.plugin", "-o", "python_functions=bench_*"]
    options += ["--benchmark-max-time=0.01", f"--rootdir={tmp_path}", "-c", "/dev/null"]
    pytest_ = [sys.executable, "-m", "pytest", *options, str(tmp_path / "bench_it.py")]
    code, found = run(one=lambda raw: [*pytest_, f"--benchmark-json={raw}"])
    assert (code, names(found)) == (1, ["bench_first"])
    assert found["benchmarks"][0]["extra_info"] == {"tokens_per_s": 3}


def test_every_suite_with_a_mark_is_in_a_part(tmp_path):
    commands = [part.command for part in gpu_bench.parts(tmp_path)]
    for name in gpu_bench.marked(ROOT / "bench"):
        assert any(str(ROOT / "bench" / f"{name}.py") in command for command in commands), name
    assert gpu_bench.marked(ROOT / "bench") >= {"bench_peers", "bench_kernels_gpu"}


def test_suites_that_no_part_names_come_last(tmp_path, monkeypatch):
    (tmp_path / "bench").mkdir()
    for name, text in (("stages", "mark.gpu"), ("more", "mark.gpu"), ("cpu", "")):
        (tmp_path / "bench" / f"bench_{name}.py").write_text(text)
    monkeypatch.setattr(gpu_bench, "ROOT", tmp_path)
    found = {part.name: part for part in gpu_bench.parts(tmp_path)}
    assert list(found) == ["rewards and stages", "all others"]
    assert str(tmp_path / "bench/bench_more.py") in found["all others"].command
    assert str(tmp_path / "bench/bench_cpu.py") not in found["all others"].command
    assert found["all others"].limit_s == TOTAL_S


def test_kernels_that_gpu_check_has_timed_are_left_out(tmp_path):
    def write(**content):
        (tmp_path / "kernels.json").write_text(json.dumps(content))
        return gpu_bench.kernels_are_known(tmp_path)

    assert not gpu_bench.kernels_are_known(tmp_path)
    rows = [{"name": "bench_gemm"}]
    assert write(kernel_sources=kernel_sources(), kernels=rows)
    assert not write(kernel_sources=kernel_sources(), kernels=[])
    assert not write(kernel_sources="another", kernels=rows)
    kernels = "bench_kernels_gpu.py"
    for wanted in (True, False):
        commands = [part.command for part in gpu_bench.parts(tmp_path, kernels=wanted)]
        assert any(kernels in word for command in commands for word in command) == wanted


def test_without_a_device(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_bench.main([f"--results={tmp_path}"]) == 2
    assert "no CUDA device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
