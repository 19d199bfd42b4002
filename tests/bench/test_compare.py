"""`make bench-compare` with turns and a repository made up for it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("pytest_benchmark")

from bench import compare as comparing
from bench import sides
from bench.lockstep import Limits, Played, run_in_turns
from bench.sides import Side, prepare
from bench.sizes import COMPARED
from bench.turns import Seconds
from bench.verdicts import compare
from tests.bench.sided import PYPROJECT, lay_out

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NEW, OLD = Side(Path("new"), Path("python")), Side(Path("old"), Path("python"))


@pytest.fixture
def comparison(monkeypatch, tmp_path):
    """Compares made-up revisions: by benchmark, its ratios, one for each time that it runs, or what
    is wrong with it.
    """

    def compare(benchmarks, *arguments):
        calls = []

        def run(old, new, names, limits):
            assert (old, new) == (OLD, NEW)
            calls.append((list(names), limits))
            played = Played()
            for name in names:
                given = benchmarks[name]
                if isinstance(given, tuple):
                    played.problems[name] = given
                else:
                    new = given[len(calls) - 1]
                    played.pairs[name] = [(Seconds(1.0, 1.0), Seconds(new, new))] * 12
            return played

        monkeypatch.setattr(comparing, "prepare", lambda base, folder: (OLD, NEW))
        monkeypatch.setattr(comparing, "git", lambda *arguments: "abc123")
        monkeypatch.setattr(comparing, "run_in_turns", run)
        out = tmp_path / "out" / "compare.json"
        code = comparing.main([*benchmarks, *arguments, "--base=HEAD", f"--out={out}"])
        return code, json.loads(out.read_text()), calls

    return compare


def test_a_slowdown_runs_again_and_fails(comparison, capsys):
    code, found, calls = comparison({"a": [1.2, 1.1], "b": [1.0]})
    assert code == 1
    assert found["first"]["a"]["ratio"] == pytest.approx(1.2)
    assert found["judged"]["a"]["ratio"] == pytest.approx(1.1)
    assert found["judged"]["a"]["noise"] == pytest.approx(0.0)
    assert list(found["judged"]) == ["a"]
    assert [names for names, _ in calls] == [["a", "b"], ["a"]]
    a, b = capsys.readouterr().out.splitlines()[-2:]
    assert (a.split()[0], a.split()[-1]) == ("a", "SLOWER")
    assert (b.split()[0], b.split()[-1]) == ("b", "same")


def test_what_was_slower_once_only_passes(comparison):
    code, found, _ = comparison({"a": [1.3, 1.0]})
    assert code == 0
    assert found["first"]["a"]["ratio"] == pytest.approx(1.3)
    assert found["judged"]["a"]["ratio"] == pytest.approx(1.0)


def test_limits(comparison):
    _, _, calls = comparison({"a": [1.0]}, "--pairs=10", "--minutes=0")
    [(_, limits)] = calls
    assert (limits.least, limits.most) == (10, 10)
    _, _, [(_, usual), (_, judging)] = comparison({"a": [2.0, 1.0]})
    assert (usual.least, usual.most) == (comparing.LEAST_PAIRS, comparing.PAIRS)
    assert (judging.least, judging.most) == (comparing.LEAST_TO_JUDGE, comparing.PAIRS)
    assert usual.end > limits.end


@pytest.mark.parametrize("pairs", ["0", "5"])
def test_pairs_that_are_not_even(pairs, capsys):
    with pytest.raises(SystemExit):
        comparing.main([f"--pairs={pairs}"])
    assert f"--pairs {pairs}: turns are" in capsys.readouterr().err


def test_what_fails_in_the_older_revision_is_new(comparison, capsys):
    code, found, _ = comparison({"a": [1.0], "b": ("new", "broken")})
    assert code == 0
    assert found["problems"] == {"b": ["new", "broken"]}
    assert "b: new, broken" in capsys.readouterr().out


def test_what_fails_in_the_working_tree_fails(comparison):
    code, found, _ = comparison({"a": [1.0], "b": ("failed", "broken")})
    assert (code, found["problems"]) == (1, {"b": ["failed", "broken"]})


def test_nothing_to_compare(comparison):
    assert comparison({"a": ("new", "broken")})[0] == 2
    assert comparison({"a": ("skipped", "no")})[0] == 2


def test_the_usual_benchmarks_are_there():
    for name in COMPARED:
        file, _, function = name.partition("::")
        text = (ROOT / file).read_text("utf-8")
        assert f"def {function.partition('[')[0]}(" in text, name


def test_noise_that_hides_a_slowdown_is_told():
    found = compare([(1.0, x) for x in (0.8, 0.8, 1.25, 1.25, 1.0, 1.0)])
    assert comparing.verdict(found, None) == "too noisy to tell"


BENCH = """
import pytest
import flipfast
from bench import turns

now = 0.0

def work(seconds):
    global now
    now += seconds

def look():
    work(1e-6)
    return now

# Time goes by where work says so, whatever else the machine does.
turns.perf_counter = turns.process_time = look

def bench_good(benchmark):
    assert benchmark(lambda: 1) == 1

def bench_wrong(benchmark):
    benchmark(lambda: flipfast.VALUE)
    assert flipfast.VALUE == 2

def bench_slow(benchmark):
    benchmark(lambda: work(1e-3 * flipfast.VALUE))

def bench_where(benchmark):
    assert str(flipfast.__file__).startswith(str(pytest.__file__)), flipfast.__file__
"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one commit and a change to it, and modules that stand for C++ ones."""
    root = tmp_path / "repository"
    lay_out(root, bench_other="raise SystemExit('of the old revision')")
    for name, text in {
        "flipfast/__init__.py": "VALUE = 1\n",
        "kernels/flipfast_kernels/__init__.py": "",
        "csrc/a.cc": "int a;",
        "CMakeLists.txt": "",
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
    return root


def test_each_side_runs_its_own_package_and_the_same_benchmarks(repository, tmp_path):
    assert sides.default_base() == "HEAD"
    (tmp_path / "work").mkdir()
    old, new = prepare("HEAD", tmp_path / "work")
    for a, b, kind in ((old, new, "new"), (new, old, "failed")):
        played = run_in_turns(a, b, ["bench_it.py"], Limits(0.0, 2, 2, 0.0))
        good, wrong, slow, where = (
            f"bench_it.py::bench_{name}" for name in ("good", "wrong", "slow", "where")
        )
        assert set(played.pairs) == {good, slow}
        assert set(played.problems) == {wrong, where}
        assert played.problems[wrong][0] == kind
        assert str(b.folder / "flipfast/__init__.py") in played.problems[where][1]
        assert (b.folder / "flipfast/_core.so").read_text() == "here"


def test_a_slowdown_from_one_end_to_the_other(repository, tmp_path, capsys):
    """Twice the work in the working tree."""
    names = [f"bench_it.py::bench_{name}" for name in ("good", "slow")]
    out = tmp_path / "compare.json"
    assert comparing.main([*names, "--pairs=20", f"--out={out}"]) == 1
    found = json.loads(out.read_text())
    assert found["first"][names[0]]["ratio"] == pytest.approx(1.0)
    assert list(found["judged"]) == names[1:]
    assert found["judged"][names[1]]["ratio"] == pytest.approx(2.0, rel=0.01)
    assert capsys.readouterr().out.splitlines()[-1].split()[-1] == "SLOWER"


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


def test_an_unknown_commit(repository):
    with pytest.raises(SystemExit, match="rev-parse"):
        sides.git("rev-parse", "--verify", "nothing-such")
    assert shutil.which("git")
