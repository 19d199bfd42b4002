"""`make gpu-check` with commands that stand in for its parts."""

import json
import subprocess
import sys
import time

import pytest
import torch

pytest.importorskip("triton")

from bench import gpu_check
from bench.gpu_check import Part, gpu_tests, kernel_rows, run_part, run_parts

pytestmark = pytest.mark.slow

STOPPABLE = """
import time
try:
    print("begun", flush=True)
    open("begun", "w").close()
    time.sleep(600)
except KeyboardInterrupt:
    print("written")
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("begun", flush=True)
open("begun", "w").close()
time.sleep(600)
"""


MINUTES = 300.0


def python(text, limit_s=MINUTES):
    return Part("a part", [sys.executable, "-c", text], limit_s)


def test_a_part_that_fails_does_not_lose_the_others(tmp_path):
    todo = [python("print(1)"), python("raise SystemExit('broken')"), python("print(3)")]
    outcomes = run_parts(todo, 3 * MINUTES, tmp_path)
    assert [o.result for o in outcomes] == ["passed", "failed", "passed"]
    assert [o.tail for o in outcomes] == [["1"], ["broken"], ["3"]]


@pytest.mark.parametrize(
    ("text", "tail"), [(STOPPABLE, ["begun", "written"]), (STUBBORN, ["begun"])]
)
def test_a_part_is_stopped_at_its_limit_and_may_write_what_it_has(
    text, tail, tmp_path, monkeypatch
):
    class Begun(subprocess.Popen):
        """Its time runs when it has begun, however long that takes on a busy machine."""

        def communicate(self, *args, **kwargs):
            end = time.monotonic() + MINUTES
            while not (tmp_path / "begun").exists():
                assert time.monotonic() < end
                time.sleep(0.01)
            return super().communicate(*args, **kwargs)

    monkeypatch.setattr(gpu_check.subprocess, "Popen", Begun)
    monkeypatch.setattr(gpu_check, "_GRACE_S", 0.5 if text is STUBBORN else MINUTES)
    outcome = run_part(python(text), 0.1, tmp_path)
    assert outcome.result == "stopped"
    assert outcome.tail == tail


def test_nothing_begins_after_the_end(tmp_path):
    [outcome] = run_parts([python("print(1)")], 0.0, tmp_path)
    assert (outcome.result, outcome.tail) == ("stopped", ["there was no time left"])


def test_the_parts_end_in_time():
    parts = gpu_check.parts(gpu_check.ROOT, gpu_check.ROOT / "raw.json")
    assert sum(part.limit_s for part in parts[:-1]) + gpu_check._GRACE_S < 9 * 60
    assert gpu_check.TOTAL_S + gpu_check._GRACE_S + 90 < 9 * 60


def test_files_with_tests_for_a_device(tmp_path, monkeypatch):
    for name, text in (
        ("test_a.py", "@pytest.mark.gpu"),
        ("test_b.py", "nothing of the kind"),
        ("test_c.py", "from hypothesis import given\n@pytest.mark.gpu"),
    ):
        (tmp_path / name).write_text(text)
    assert [path.name for path in gpu_tests(tmp_path)][:1] == ["test_a.py"]
    monkeypatch.setattr(gpu_check.importlib.util, "find_spec", lambda name: None)
    assert [path.name for path in gpu_tests(tmp_path)] == ["test_a.py"]
    monkeypatch.setattr(gpu_check.importlib.util, "find_spec", lambda name: True)
    assert [path.name for path in gpu_tests(tmp_path)] == ["test_a.py", "test_c.py"]
    assert any(path.name == "test_gemm.py" for path in gpu_tests(gpu_check.ROOT / "tests"))


def test_all_is_written(tmp_path, monkeypatch):
    """With a made-up device, one part that passes and one that writes figures and fails."""
    figures = {"us": 3.5, "gb_per_s": 4000.0, "share_of_copy": 0.9, "speed_over_cublas": 0.75}
    rows = {"benchmarks": [{"name": "bench_gemm[1]", "group": "gemm", "extra_info": figures}]}

    def parts(folder, raw):
        text = f"open({str(raw)!r}, 'w').write({json.dumps(rows)!r}); raise SystemExit(1)"
        return [python("print('ok')"), python(text)]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Test GPU 9")
    monkeypatch.setattr(gpu_check, "parts", parts)
    assert gpu_check.main([f"--results={tmp_path}"]) == 1
    folder = tmp_path / "test-gpu-9"
    assert sorted(path.name for path in folder.iterdir()) == ["kernels.json", "summary.md"]
    content = json.loads((folder / "kernels.json").read_text())
    assert content["kernels"] == [{"name": "bench_gemm[1]", "group": "gemm", **figures}]
    assert [part["result"] for part in content["parts"]] == ["passed", "failed"]
    assert content["torch"] == torch.__version__
    assert content["kernel_sources"] == gpu_check.kernel_sources()
    text = (folder / "summary.md").read_text()
    assert "# Test GPU 9" in text
    assert "| gemm[1] | 3.5 | 4000.0 | 0.9 |  | cublas 0.75 |" in text


def test_without_figures_there_are_no_rows(tmp_path):
    assert kernel_rows(tmp_path / "none.json") == []
    (tmp_path / "half.json").write_text('{"bench')
    assert kernel_rows(tmp_path / "half.json") == []


def test_without_a_device(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main([f"--results={tmp_path}"]) == 2
    assert "no CUDA device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
