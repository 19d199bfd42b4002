"""`make bench-compare` with runs and a repository made up for it."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("pytest_benchmark")

from bench import compare as comparing
from bench import sides
from bench.sides import Run, Side, prepare, read_run, run_benchmarks
from bench.sizes import COMPARED

ROOT = Path(__file__).resolve().parents[2]
NEW, OLD = Side(Path("new"), Path("python")), Side(Path("old"), Path("python"))


def a_run(seconds, failed=(), skipped=()):
    return Run(seconds, dict.fromkeys(failed, "broken"), dict.fromkeys(skipped, "no"))


@pytest.fixture
def comparison(monkeypatch, tmp_path):
    """Compares made-up revisions: functions from a run's number to the run."""

    def compare(old, new, *arguments):
        calls = []

        def run(side, benchmarks):
            calls.append((side, list(benchmarks)))
            run = (old if side is OLD else new)(len(calls))
            asked = {
                name: x for name, x in run.seconds.items() if name.startswith(tuple(benchmarks))
            }
            return replace(run, seconds=asked)

        monkeypatch.setattr(comparing, "prepare", lambda base, folder: (OLD, NEW))
        monkeypatch.setattr(comparing, "git", lambda *arguments: "abc123")
        monkeypatch.setattr(comparing, "run_benchmarks", run)
        out = tmp_path / "out" / "compare.json"
        code = comparing.main([*arguments, "--base=HEAD", f"--out={out}"])
        return code, json.loads(out.read_text()), calls

    return compare


def test_a_slowdown_runs_again_and_fails(comparison, capsys):
    code, found, calls = comparison(
        lambda i: a_run({"a": 1.0, "b": 1.0}), lambda i: a_run({"a": 1.1, "b": 1.0}), "a", "b"
    )
    assert code == 1
    assert found["judged"]["a"]["ratio"] == pytest.approx(1.1)
    assert list(found["judged"]) == ["a"]
    assert [side is NEW for side, _ in calls[:11]] == [False, True] * 5 + [False]
    assert {tuple(names) for _, names in calls[:11]} == {("a", "b")}
    assert {tuple(names) for _, names in calls[11:]} == {("a",)}
    assert len(calls[11:]) == 2 * comparing.PAIRS_TO_JUDGE + 1
    a, b = capsys.readouterr().out.splitlines()[-2:]
    assert (a.split()[0], a.split()[-1]) == ("a", "SLOWER")
    assert (b.split()[0], b.split()[-1]) == ("b", "same")


def test_what_was_slower_once_only_passes(comparison):
    code, found, _ = comparison(
        lambda i: a_run({"a": 1.0}), lambda i: a_run({"a": 1.3 if i < 11 else 1.0}), "a"
    )
    assert code == 0
    assert found["first"]["a"]["ratio"] == pytest.approx(1.3)
    assert found["judged"]["a"]["ratio"] == pytest.approx(1.0)


def test_no_time_for_more_than_the_least(comparison):
    run = comparison(lambda i: a_run({"a": 1.0}), lambda i: a_run({"a": 2.0}), "a", "--minutes=0")
    assert run[0] == 1
    assert len(run[2]) == 2 * (2 * comparing.PAIRS + 1)


def test_what_fails_in_the_older_revision_is_new(comparison, capsys):
    code, found, _ = comparison(
        lambda i: a_run({"a": 1.0}, failed=["b"]), lambda i: a_run({"a": 1.0, "b": 1.0}), "a", "b"
    )
    assert code == 0
    assert found["problems"] == {"b": ["new", "broken"]}
    assert "b: new, broken" in capsys.readouterr().out


def test_what_fails_in_the_working_tree_fails(comparison):
    code, found, _ = comparison(
        lambda i: a_run({"a": 1.0, "b": 1.0}), lambda i: a_run({"a": 1.0}, failed=["b"]), "a", "b"
    )
    assert (code, found["problems"]) == (1, {"b": ["failed", "broken"]})


def test_nothing_to_compare(comparison):
    assert comparison(lambda i: a_run({}, ["a"]), lambda i: a_run({"a": 1.0}), "a")[0] == 2
    assert comparison(lambda i: a_run({}, (), ["a"]), lambda i: a_run({}, (), ["a"]), "a")[0] == 2


def test_a_name_that_nothing_has(comparison):
    code, found, _ = comparison(
        lambda i: a_run({"f.py::a[1]": 1.0}), lambda i: a_run({"f.py::a[1]": 1.0}), "f.py::a", "x"
    )
    assert (code, list(found["problems"])) == (1, ["x"])


def test_the_usual_benchmarks_are_there():
    for name in COMPARED:
        file, _, function = name.partition("::")
        text = (ROOT / file).read_text("utf-8")
        assert f"def {function.partition('[')[0]}(" in text, name


def test_noise_that_hides_a_slowdown_is_told():
    seconds = [1.0, 1.5, 1.0, 1.5, 1.0, 1.5]
    found = comparing.compare(seconds, seconds[:5])
    assert comparing.verdict(found, None) == "too noisy to tell"


BENCH = """
import pytest
import flipfast

def bench_good(benchmark):
    assert benchmark(lambda: 1) == 1

def bench_wrong(benchmark):
    benchmark(lambda: flipfast.VALUE)
    assert flipfast.VALUE == 2

def bench_where(benchmark):
    benchmark(lambda: flipfast.VALUE)
    pytest.skip(flipfast.__file__)
"""
CONFTEST = """
def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true")
    parser.addoption("--only", action="append")
"""
PYPROJECT = """
[build-system]
requires = []
[tool.pytest.ini_options]
python_files = ["bench_*.py"]
python_functions = ["bench_*"]
pythonpath = ["."]
[tool.scikit-build]
wheel.packages = []
"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one commit and a change to it, and modules that stand for C++ ones."""
    root = tmp_path / "repository"
    for name, text in {
        "flipfast/__init__.py": "VALUE = 1\n",
        "kernels/flipfast_kernels/__init__.py": "",
        "csrc/a.cc": "int a;",
        "CMakeLists.txt": "",
        "pyproject.toml": PYPROJECT,
        "conftest.py": CONFTEST,
        "bench_other.py": "raise SystemExit('of the old revision')",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], cwd=root, check=True)
    (root / "flipfast/__init__.py").write_text("VALUE = 2\n")
    (root / "bench_other.py").unlink()
    (root / "bench_it.py").write_text(BENCH)
    module = tmp_path / "_core.so"
    module.write_text("here")
    monkeypatch.setattr(sides, "ROOT", root)
    monkeypatch.setattr(sides, "_modules_here", lambda: [module])
    monkeypatch.setenv("PYTEST_ADDOPTS", "--benchmark-max-time=0.01")
    return root


def test_each_side_runs_its_own_package_and_the_same_benchmarks(repository, tmp_path):
    assert sides.default_base() == "HEAD"
    (tmp_path / "work").mkdir()
    old, new = prepare("HEAD", tmp_path / "work")
    runs = {side: run_benchmarks(side, ["bench_it.py"]) for side in (old, new)}
    good, wrong, where = (f"bench_it.py::bench_{name}" for name in ("good", "wrong", "where"))
    assert good in runs[old].seconds
    assert list(runs[old].failed) == [wrong]
    assert wrong not in runs[old].seconds
    assert (list(runs[new].failed), wrong in runs[new].seconds) == ([], True)
    for side, run in runs.items():
        assert run.skipped == {where: str(side.folder / "flipfast/__init__.py")}
        assert (side.folder / "flipfast/_core.so").read_text() == "here"


def test_other_cpp_is_built(repository, tmp_path, monkeypatch):
    built = tmp_path / "built.so"
    built.write_text("built")
    monkeypatch.setattr(sides, "_build", lambda checkout, folder: [built])
    (repository / "csrc/a.cc").write_text("int b;")
    (tmp_path / "work").mkdir()
    old, new = prepare("HEAD", tmp_path / "work")
    assert (old.folder / "flipfast/built.so").exists()
    assert not (old.folder / "flipfast/_core.so").exists()
    assert (new.folder / "flipfast/_core.so").exists()


@pytest.mark.parametrize(
    ("old", "new", "alike"),
    [("cmake.version = 1", "cmake.version = 2", False), ("", "[tool.mypy]\nstrict = true\n", True)],
)
def test_how_it_is_built_counts_and_nothing_else(old, new, alike, tmp_path):
    for name, more in (("old", old), ("new", new)):
        (tmp_path / name / "csrc").mkdir(parents=True)
        (tmp_path / name / "CMakeLists.txt").touch()
        (tmp_path / name / "pyproject.toml").write_text(f"{PYPROJECT}{more}\n")
    assert sides._built_alike(tmp_path / "old", tmp_path / "new") == alike


def test_a_module_that_cannot_be_imported(tmp_path):
    (tmp_path / "results.xml").write_text(
        '<testsuites><testsuite><testcase classname="" name="bench.bench_it">'
        '<error message="collection failure">text</error></testcase></testsuite></testsuites>'
    )
    run = read_run(tmp_path / "none.json", tmp_path / "results.xml")
    assert run == Run({}, {"bench/bench_it.py": "collection failure"}, {})


def test_an_unknown_commit(repository):
    with pytest.raises(SystemExit, match="rev-parse"):
        sides.git("rev-parse", "--verify", "nothing-such")
    assert shutil.which("git")
