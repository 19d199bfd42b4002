"""`flipfast bench` with commands that are not run: which they are, and what follows."""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("pytest_benchmark")

from flipfast.cli import bench as module
from flipfast.cli import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def commands(monkeypatch):
    """What was run, the pytest among it with its exit code; results, too, unless that is 5."""
    found, codes = [], {"pytest": 0, "bench.report": 0}

    def run(root, arguments):
        assert root == ROOT
        found.append(arguments)
        code = codes[arguments[1]]
        if arguments[1] == "pytest" and code != 5:
            Path(arguments[-1].removeprefix("--benchmark-json=")).write_text("{}")
        return code

    monkeypatch.setattr(module, "_python", run)
    return found, codes


def without_paths(arguments):
    return [part for part in arguments[2:] if ".json" not in part]


def test_everything_is_run_stored_and_reported(commands):
    assert main(["bench", "--report"]) == 0
    (measured, reported), _ = commands
    assert measured[:2] == ["-m", "pytest"]
    assert without_paths(measured) == ["bench"]
    assert reported[:2] == ["-m", "bench.report"]
    assert measured[-1] == f"--benchmark-json={reported[2]}"
    assert without_paths(reported) == ["--store", "--page"]


def test_a_part_is_added_to_what_is_stored(commands, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--quick", "--only", "text_core", "drafting", "--groups", "g.jsonl", "--out", "here"]
    assert main(["bench", *options]) == 0
    (measured, stored), _ = commands
    assert without_paths(measured) == [
        *("bench/bench_text_core.py", "bench/bench_drafting.py"),
        *("--quick",),
    ]
    assert f"--groups={tmp_path}/g.jsonl" in measured
    assert without_paths(stored) == ["--store", "--add", f"--out={tmp_path}/here"]


def test_the_cuda_part(commands, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "--gpu"]) == 2
    assert "torch sees no CUDA device" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert main(["bench", "--gpu"]) == 0
    (measured, stored), _ = commands
    assert without_paths(measured) == ["bench", "-m", "gpu"]
    assert without_paths(stored) == ["--store", "--add"]


def test_the_report_of_an_earlier_run(commands, tmp_path):
    assert main(["bench", "--from", str(tmp_path / "run.json")]) == 0
    assert commands[0] == [["-m", "bench.report", f"{tmp_path}/run.json", "--page"]]


def test_a_benchmark_that_fails_does_not_lose_the_others(commands, capsys):
    found, codes = commands
    codes["pytest"] = 1
    assert main(["bench"]) == 2
    assert found[1][1] == "bench.report"
    assert "a benchmark failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("which", "code", "message"),
    [("pytest", 5, "nothing was measured"), ("bench.report", 2, "could not be stored")],
)
def test_what_can_go_wrong_meanwhile(which, code, message, commands, capsys):
    commands[1][which] = code
    assert main(["bench"]) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_suite(commands, capsys):
    assert main(["bench", "--only", "text"]) == 2
    error = capsys.readouterr().err
    assert "no suite 'text'" in error
    assert "text_core" in error
    assert commands[0] == []


def test_without_a_checkout(commands, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(module, "__file__", str(tmp_path / "flipfast" / "cli" / "bench.py"))
    assert main(["bench"]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path} holds no benchmarks" in error
    assert "git clone" in error


@pytest.mark.parametrize(
    ("options", "missing", "command"),
    [([], "pytest_benchmark", "flipfast[bench]"), (["--report"], "matplotlib", "flipfast[plot]")],
)
def test_a_missing_package_is_named_before_anything_runs(
    options, missing, command, commands, monkeypatch, capsys
):
    found = module.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == missing else found(name))
    assert main(["bench", *options]) == 2
    assert command in capsys.readouterr().err
    assert commands[0] == []


def test_this_python_runs_it(monkeypatch, tmp_path):
    """In the folder that it is given, and its exit code comes back."""
    code = "import json, os, sys; json.dump(os.getcwd(), open('here.json', 'w')); sys.exit(3)"
    assert module._python(tmp_path, ["-c", code]) == 3
    assert json.loads((tmp_path / "here.json").read_text()) == str(tmp_path)
