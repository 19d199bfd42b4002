"""`make gpu`: its plan, its runner with commands that stand in for parts, and a rehearsal."""

import json
import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("triton")

from bench.gpu import __main__ as runner
from bench.gpu.part import NAMES
from bench.gpu.plan import FIRST, ROOT, UNMARKED, Part, other_tests, parts
from tests.waiting import wait_until

HANG = "import os, time\nprint('begun', os.getpid(), flush=True)\ntime.sleep(600)"
STUBBORN = f"import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n{HANG}"
ROW = {"fullname": "x", "name": "x", "group": "g", "stats": {}}


def python(name, text, limit_s=300.0):
    command = [sys.executable, "-c", text]
    return Part(name, limit_s, command, command)


def noting(name, out, then=""):
    """A part that has a figure, as bench.gpu.place writes it."""
    row = {**ROW, "fullname": name, "extra_info": {"device": "Test GPU 9", "commit": "abc"}}
    line = json.dumps(row)
    return python(
        name, f"open({str(out / 'figures.jsonl')!r}, 'a').write({line!r} + '\\n')\n{then}"
    )


def found(out):
    """Names of figures, and of parts that did not pass."""
    content = json.loads((out / "benchmarks.json").read_text())
    return [
        [row[key] for row in content[rows]]
        for rows, key in (("benchmarks", "fullname"), ("skipped", "name"))
    ]


@pytest.mark.parametrize(("tune", "most_s"), [(False, 420.0), (True, 300.0)])
def test_all_limits_together(tune, most_s, tmp_path):
    todo = parts(tmp_path, tune=tune, install=True)
    assert sum(part.limit_s for part in todo) <= most_s
    assert all(part.limit_s > runner.GRACE_S for part in todo)
    assert [part.name for part in todo] == list(dict.fromkeys(part.name for part in todo))


def test_every_part_and_test_is_in_a_run(tmp_path):
    runs = [parts(tmp_path, tune=tune, install=False) for tune in (False, True)]
    words = {word for run in runs for part in run for word in part.command}
    assert words > {*NAMES, *FIRST, *UNMARKED}
    for path in (*FIRST, *UNMARKED):
        assert (ROOT / path).exists(), path
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        name = path.relative_to(ROOT).as_posix()
        if "mark.gpu" in path.read_text() and not name.startswith("tests/bench/"):
            assert name.startswith(FIRST) or name in words, name


def test_tests_for_a_device_are_found(tmp_path):
    (tmp_path / "tests/kernels").mkdir(parents=True)
    for name in ("test_a.py", "test_b.py", "kernels/test_c.py"):
        text = "x = 1" if "b" in name else "@pytest.mark.gpu"
        (tmp_path / "tests" / name).write_text(text)
    assert other_tests(tmp_path / "tests") == ["tests/test_a.py"]


def test_a_part_that_fails_keeps_its_figures_and_loses_no_other(tmp_path, capfd):
    todo = [
        noting("one", tmp_path, then="print('too bad')\nraise SystemExit(3)"),
        python("two", "raise RuntimeError('broken')"),
        python("three", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"),
        noting("four", tmp_path),
    ]
    assert runner.run(todo, tmp_path) == 1
    assert found(tmp_path) == [["one", "four"], ["one", "two", "three"]]
    lines = (tmp_path / "parts.txt").read_text().splitlines()
    assert lines[0].startswith("one: failed (3), ")
    assert lines[0].endswith("; too bad")
    assert lines[1].endswith("; RuntimeError: broken")
    assert lines[2].startswith("three: failed (-9), ")
    assert lines[3].startswith("four: passed")
    assert "RuntimeError: broken" in (tmp_path / "log.txt").read_text()
    assert "Traceback" in capfd.readouterr().out
    content = json.loads((tmp_path / "benchmarks.json").read_text())
    assert (content["device"], content["versions"]) == ("Test GPU 9", {"commit": "abc"})


@pytest.mark.parametrize("text", [HANG, STUBBORN])
def test_a_part_that_hangs_is_stopped_at_its_limit(text, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "GRACE_S", 0.5)
    todo = [python("hangs", text, limit_s=5.0), noting("next", tmp_path)]
    assert runner.run(todo, tmp_path) == 1
    assert found(tmp_path) == [["next"], ["hangs"]]
    assert (tmp_path / "parts.txt").read_text().startswith("hangs: stopped, ")


def test_what_runs_beside_a_part_has_no_verdict_and_ends_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "GRACE_S", 0.5)
    file = tmp_path / "written"
    beside = [
        python("", f"open({str(file)!r}, 'w').close()\nraise SystemExit(1)").command,
        python("", HANG).command,
    ]
    part = python("one", "print('said')", limit_s=6.0)._replace(beside=beside)
    assert runner.run([part], tmp_path) == 0
    assert file.exists()
    assert (tmp_path / "parts.txt").read_text().startswith("one: passed, ")
    assert "begun" not in (tmp_path / "log.txt").read_text()


def test_a_run_that_is_killed_has_written_what_had_ended(tmp_path):
    """With SIGKILL, which no program sees: what is in the files then is all that there will be."""
    text = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from bench.gpu.__main__ import run
from bench.gpu.plan import Part
row = {json.dumps({**ROW, "extra_info": {}})!r}
write = f"open({str(tmp_path / "figures.jsonl")!r}, 'a').write({{row!r}} + chr(10))"
commands = [[sys.executable, "-c", x] for x in (write, {HANG!r})]
run([Part(str(i), 600.0, x, x) for i, x in enumerate(commands)], Path({str(tmp_path)!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.DEVNULL)
    try:
        log = tmp_path / "log.txt"
        wait_until(lambda: log.exists() and "begun" in log.read_text().split()[:-1])
    finally:
        process.kill()
        process.wait()
        os.kill(int(log.read_text().split()[-1]), signal.SIGKILL)
    assert found(tmp_path) == [["x"], []]
    assert (tmp_path / "parts.txt").read_text().startswith("0: passed, ")


@pytest.mark.slow
def test_a_rehearsal_reaches_every_part(tmp_path):
    """In one process, which compiles nothing; `make gpu-rehearse` does, part by part."""
    command = [sys.executable, "-m", "bench.gpu.part", f"--out={tmp_path}", "--rehearse"]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"FLIPFAST_COMMIT": "abc", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
    done = subprocess.run(
        [*command, "--uncompiled", *NAMES],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "figures.jsonl").read_text().splitlines()]
    assert all(row["extra_info"]["commit"] == "abc" for row in rows)
    groups = {row["group"].partition(",")[0] for row in rows}
    assert groups >= {"device", "bits", "path", "wave", "steady", "steps", "product", "attention"}
    assert (tmp_path / "tuning.json").exists()
    runner.merge(tmp_path, [])
    assert len(list(tmp_path.iterdir())) <= 8


def test_a_part_without_a_device(tmp_path):
    from bench.gpu import part

    assert part.main([f"--out={tmp_path}", "device"]) == 2
    assert list(tmp_path.iterdir()) == []
