"""`make gpu-check` and `make gpu-bench` with commands that stand in for their parts."""

import json
import sys

import pytest
import torch

pytest.importorskip("triton")
pytest.importorskip("pytest_benchmark")

from bench import gpu
from bench.gpu import Part, run_part
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
"""
BEGUN = "import signal, time\n{}open({!r}, 'w').close()\ntime.sleep(600)"
STUBBORN = "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"


def python(text):
    return [sys.executable, "-c", text]


def writing(path, *names, then=""):
    rows = [{"fullname": x, "name": x, "stats": {"data": [1], "min": 1}} for x in names]
    content = json.dumps({"benchmarks": rows, "datetime": "2026-01-01", "machine_info": {}})
    return python(f"open({str(path)!r}, 'w').write({content!r})\n{then}")


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs made-up parts on a made-up device: functions from a result file to a command."""

    def run(**commands):
        def parts(scratch, folder):
            return [
                Part(name, command(scratch / f"raw-{name}.json"), 300.0)
                for name, command in commands.items()
            ]

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(gpu, "device_folder", lambda: "test-gpu-9")
        monkeypatch.setattr(gpu, "bench_parts", parts)
        monkeypatch.setattr("bench.results.device_name", lambda device: "Test GPU 9")
        code = gpu.main(["bench", f"--results={tmp_path}"])
        return code, read(tmp_path / "test-gpu-9" / "benchmarks.json")

    return run


def names(found):
    return [row["name"] for row in found["benchmarks"]]


def test_parts_are_added_to_what_is_stored(run):
    code, found = run(one=lambda raw: writing(raw, "a", "b"), two=lambda raw: writing(raw, "c"))
    assert (code, names(found), found["skipped"]) == (0, ["a", "b", "c"], [])
    assert "data" not in found["benchmarks"][0]["stats"]
    assert names(run(one=lambda raw: writing(raw, "d", "a"))[1]) == ["a", "b", "c", "d"]


def test_a_part_that_fails_keeps_what_it_wrote_and_loses_no_other(run):
    code, found = run(
        one=lambda raw: writing(raw, "a", then="raise SystemExit(1)"),
        two=lambda raw: python("raise SystemExit('broken')"),
        three=lambda raw: writing(raw, "c"),
    )
    assert (code, names(found)) == (1, ["a", "c"])
    assert [row["name"] for row in found["skipped"]] == ["one", "two"]
    assert found["skipped"][1]["reason"].startswith("failed after")


def test_pytest_writes_what_it_has_when_it_is_stopped(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (tmp_path / "bench_it.py").write_text(BENCH)
    options = ["-p", "pytest_benchmark.plugin", "-o", "python_functions=bench_*"]
    options += ["--benchmark-max-time=0.01", f"--rootdir={tmp_path}", "-c", "/dev/null"]
    pytest_ = [sys.executable, "-m", "pytest", *options, str(tmp_path / "bench_it.py")]
    code, found = run(one=lambda raw: [*pytest_, f"--benchmark-json={raw}"])
    assert (code, names(found)) == (1, ["bench_first"])
    assert found["benchmarks"][0]["extra_info"] == {"tokens_per_s": 3}


@pytest.mark.parametrize("stubborn", ["", STUBBORN])
def test_a_part_is_stopped_at_its_limit(stubborn, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "GRACE_S", 0.5)
    result = run_part(python(BEGUN.format(stubborn, str(tmp_path / "begun"))), 3.0)
    assert result.startswith("stopped after")
    assert run_part(python("print(1)"), 0.0).startswith("stopped: there was no time")
    assert run_part(python("print(1)"), 300.0) == "passed"


def test_every_suite_with_a_mark_is_in_a_part(tmp_path):
    parts = gpu.bench_parts(tmp_path, tmp_path)
    words = {word for part in parts for word in part.command}
    for path in gpu.ROOT.glob("bench/bench_*.py"):
        marked = "mark.gpu" in path.read_text() and path.stem != gpu.KERNELS
        assert (f"bench/{path.name}" in words) == marked, path
    checks = gpu.check_parts(tmp_path, tmp_path)
    assert any(f"bench/{gpu.KERNELS}.py" in part.command for part in checks)
    assert sum(part.limit_s for part in checks[:-1]) + gpu.GRACE_S < 9 * 60


def test_files_with_tests_for_a_device(tmp_path, monkeypatch):
    for name, text in (
        ("test_a.py", "@pytest.mark.gpu"),
        ("test_b.py", "nothing of the kind"),
        ("test_c.py", "from hypothesis import given\n@pytest.mark.gpu"),
    ):
        (tmp_path / name).write_text(text)
    for there, expected in ((None, ["test_a.py"]), (True, ["test_a.py", "test_c.py"])):
        monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name, there=there: there)
        assert [path.name for path in gpu.gpu_tests(tmp_path)] == expected


def test_without_a_device(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["check", f"--results={tmp_path}"]) == 2
    assert "no CUDA device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
