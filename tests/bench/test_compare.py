"""`bench.compare`: what rounds made up at random tell, and revisions of a repository made up."""

import math
import random
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("pytest_benchmark")

from bench import compare
from bench.compare import SMALLEST
from bench.compare import _decide as decide

ROOT = Path(__file__).resolve().parents[2]


def rounds(rng, n, *, slower=1.0, noise=0.0, drift=0.0, bursts=0.0, second=1.0):
    """Seconds of old, new, new, old, and again.

    Args:
        noise: deviation of a turn's logarithm.
        drift: deviation of the machine's next speed from the last.
        bursts: chance that something else begins, and that it ends, which slows turns down.
        second: how much longer what does not run first takes.
    """
    speed, burst, found = 0.0, False, []
    for _ in range(n):
        turns = []
        for place, factor in enumerate((1.0, slower, slower, 1.0)):
            speed += rng.gauss(0, drift)
            burst = (rng.random() < bursts) != burst
            other = abs(rng.gauss(0, 0.5)) if burst else 0.0
            again = second if place % 2 else 1.0
            turns.append(factor * again * math.exp(speed + rng.gauss(0, noise) + other))
        found.append(turns)
    return found


def regression(rng, **conditions):
    """As `bench.compare` finds it, in two looks."""
    looks = (decide(rounds(rng, 40, **conditions)).verdict for _ in range(2))
    return all(verdict == "SLOWER" for verdict in looks)


def test_without_noise():
    assert decide([[2.0, 2.0, 2.0, 2.0]] * 8) == (2.0, 2.0, 1.0, 0.0, "same")
    found = decide([[2.0, 2.2, 2.2, 2.0]] * 8)
    assert (found.old_s, found.new_s, found.verdict) == (2.0, 2.2, "SLOWER")
    assert found.ratio == pytest.approx(1.1)
    assert decide([[2.0, 1.8, 1.8, 2.0]] * 8).verdict == "faster"
    less = 1 + 0.9 * SMALLEST
    assert decide([[1.0, less, less, 1.0]] * 8).verdict == "same"


def test_drift_and_places_are_no_change():
    for rate in (1.1, 0.9):
        found = decide([[rate ** (4 * i + k) for k in range(4)] for i in range(8)])
        assert (found.ratio, found.noise) == pytest.approx((1.0, 0.0))
    found = decide(rounds(random.Random(1), 8, second=1.5))
    assert (found.ratio, found.noise) == pytest.approx((1.0, 0.0))


def test_one_burst_of_other_load_moves_nothing():
    assert decide([[1.0] * 4] * 20 + [[1.0, 5.0, 5.0, 1.0]] * 2).verdict == "same"


def test_noise_that_hides_a_change_is_told():
    assert decide([[1.0, x, x, 1.0] for x in (0.8, 1.25) * 6]).verdict == "too noisy to tell"


def test_the_cores_decide_where_the_wall_cannot_tell():
    loud, cpu, same = [0.5, 2.0] * 8, [1.2] * 16, [1.0] * 16
    for walls, cpus, verdict in (
        *((loud, cpu, "SLOWER"), (loud, same, "same"), (same, cpu, "same")),
        (loud, [0.1, 10.0] * 8, "too noisy to tell"),
    ):
        old = (1.0, 1.0)
        found = compare.decide([[old, new, new, old] for new in zip(walls, cpus, strict=True)])
        assert found.verdict == verdict


CONDITIONS = {  # and what may be cried over, in fifteen benchmarks of a run, and must be caught
    "quiet": ({"noise": 0.01}, 0.0, 0.99, 0.99),
    "noisy": ({"noise": 0.05}, 0.01, 0.9, 0.99),
    "drifting": ({"noise": 0.02, "drift": 0.03, "second": 1.05}, 0.01, 0.95, 0.99),
    "busy": ({"noise": 0.03, "drift": 0.02, "bursts": 0.1}, 0.01, 0.4, 0.7),
}


@pytest.mark.parametrize(
    ("conditions", "false_alarms", "tenth", "seventh"), CONDITIONS.values(), ids=list(CONDITIONS)
)
def test_false_alarms_and_regressions_caught(conditions, false_alarms, tenth, seventh):
    """Of whole runs with no change, and of single benchmarks that got 10 and 15 % slower."""
    rng = random.Random(1)
    alarms = [any(regression(rng, **conditions) for _ in range(15)) for _ in range(100)]
    shares = {x: [regression(rng, slower=x, **conditions) for _ in range(100)] for x in (1.1, 1.15)}
    assert sum(alarms) / len(alarms) <= false_alarms
    for slower, share in ((1.1, tenth), (1.15, seventh)):
        found = shares[slower]
        assert sum(found) / len(found) >= share, slower


CONFTEST = """
def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true")
"""
PYPROJECT = """
[tool.pytest.ini_options]
python_files = ["bench_*.py"]
python_functions = ["bench_*"]
addopts = "--import-mode=importlib"
"""
BENCH = """
import os
import pytest
import toy
from bench import compare

now = 0.0

def work(seconds):
    global now
    now += seconds

def look():
    work(1e-6)
    return now

# Time goes by where work says so, whatever else the machine does.
compare.perf_counter = compare.process_time = look

def bench_same(benchmark):
    benchmark.group = "a"
    assert benchmark(sorted, [2, 1], reverse=True) == [2, 1]
    benchmark.extra_info["seconds"] = benchmark.stats.stats.median

def bench_slow(benchmark):
    benchmark.pedantic(lambda x: work(x * toy.VALUE), setup=lambda: ((1e-3,), {}), rounds=3)

def bench_wrong(benchmark):
    benchmark(int)
    assert toy.VALUE == 1, "not one"

def bench_right_now(benchmark):
    assert toy.VALUE == 2
    benchmark(int)

def bench_skipped(benchmark):
    pytest.skip("not today")

def bench_without_a_time(benchmark):
    pass
"""
DYING = """
import os, toy

def bench_dies(benchmark):
    benchmark(os._exit if toy.VALUE == {} else int, 0)
"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """One commit, and a change to it that makes it twice as slow."""
    root = tmp_path / "repository"
    files = {"toy.py": "VALUE = 1\n", "conftest.py": CONFTEST, "pyproject.toml": PYPROJECT}
    files |= {"flipfast/__init__.py": "", "tests/x": "", "csrc/x": "", "CMakeLists.txt": ""}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], cwd=root, check=True)
    (root / "toy.py").write_text("VALUE = 2\n")
    (root / "bench").mkdir()
    shutil.copy(ROOT / "bench/compare.py", root / "bench")
    (root / "bench/bench_it.py").write_text(BENCH)
    monkeypatch.setattr(compare, "ROOT", root)
    monkeypatch.setattr(compare, "SECONDS", 0.0)
    return root


@pytest.mark.slow
def test_revisions(repository, capsys):
    assert compare.main(["bench/bench_it.py"]) == 1
    told = {}
    for line in lines(capsys)[1:]:
        before, _, after = line.partition("bench/bench_it.py::bench_")
        name, _, why = after.partition(": ")
        told[name] = before.split() or why
    assert float(told["slow"][2]) == pytest.approx(2.0, rel=0.01)
    assert (told["slow"][-1], told["same"][-1]) == ("SLOWER:", "same:")
    assert told["wrong"].startswith("failed: ")
    assert told["right_now"].startswith("not compared: ")
    assert "not today" in told["skipped"]
    assert told["without_a_time"] == "not compared: it times nothing"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "code", "told"), [(1, 0, "the older revision"), (2, 1, "pytest")]
)
def test_a_process_that_dies(value, code, told, repository, capsys):
    (repository / "bench/bench_dies.py").write_text(DYING.format(value))
    names = ["bench/bench_dies.py", "bench/bench_it.py::bench_same"]
    assert compare.main(names) == code
    last = lines(capsys)
    assert "same: bench/bench_it.py::bench_same" in last[-2]
    assert "bench_dies.py, all or what was left: " in last[-1]
    assert f"{told} ended" in last[-1]


@pytest.mark.slow
def test_nothing_to_compare(repository, capsys):
    assert compare.main(["bench/bench_it.py::bench_skipped"]) == 2
    assert compare.main(["bench/bench_it.py::bench_nothing"]) == 1
    with pytest.raises(SystemExit, match="nothing-such"):
        compare.main(["--base=nothing-such"])


def test_the_usual_benchmarks_are_there():
    for name in compare.COMPARED:
        file, _, function = name.partition("::")
        assert f"def {function.partition('[')[0]}" in (ROOT / file).read_text("utf-8"), name


def lines(capsys):
    return capsys.readouterr().out.strip().splitlines()
