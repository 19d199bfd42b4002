"""The examples run as they are, on the embedded model."""

import json
import runpy
import sys
from pathlib import Path
from pkgutil import iter_modules

import pytest

import flipfast.trainers
from tests.trainers import standins

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ALL = sorted(path.stem.removeprefix("trainer_") for path in EXAMPLES.glob("trainer_*.py"))
NEEDS = {"skyrl": "skyrl_gym", "nemo_rl": "ray"}


def test_each_trainer_has_one():
    trainers = {name for _, name, _ in iter_modules(flipfast.trainers.__path__)}
    trainers = {name for name in trainers if not name.startswith("_")}
    # TRL's are whole runs, see below; verl's manager takes the place of the function in verl's;
    # NeMo Gym's is a folder.
    assert {*ALL, "trl", "verl_manager", "nemo_gym"} == trainers


@pytest.mark.parametrize("name", ALL)
def test_an_example(name, monkeypatch, capsys):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"the example needs {NEEDS[name]}")
    for package in ("nemo_rl.environments.interfaces", "open_instruct.ground_truth_utils"):
        shapes = {key: value for key, value in vars(standins).items() if isinstance(value, type)}
        standins.module(monkeypatch, package, **shapes)
    monkeypatch.setattr(sys, "argv", ["example"])
    path = EXAMPLES / f"trainer_{name}.py"
    assert len(path.read_text().splitlines()) <= 40
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        for module in ("nemo_rl", "open_instruct"):
            sys.modules.pop(f"flipfast.trainers.{module}", None)
        if name == "skyrl":
            sys.modules["skyrl_gym"].registry.pop("flip", None)
    assert "1." in capsys.readouterr().out  # an answer that was asked for


def run(monkeypatch, name, *arguments):
    """Run an example of TRL on the embedded model; return its global names."""
    for package in ("trl", "peft", "datasets", "matplotlib"):
        pytest.importorskip(package, reason=f"the example needs {package}")
    monkeypatch.setattr(sys, "argv", [name, "--model", "embedded", *map(str, arguments)])
    return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


@pytest.mark.slow
def test_a_run_with_trl_goes_on_where_it_was(monkeypatch, tmp_path, capsys):
    few = tmp_path / "few.txt"
    asked = ["Name a river.", "Say hi.", "What is erosion?", "Sing.", "Why?", "Count.", "Help."]
    few.write_text("\n".join(asked))
    arguments = ("--out", tmp_path / "run", "--instructions", few, "--tokens", 8, "--steps")
    [first] = rewards(run(monkeypatch, "grpo_trl", *arguments, 1))
    before = (tmp_path / "run" / "held_out_0.json").read_text("utf-8")
    again = run(monkeypatch, "grpo_trl", *arguments, 2)
    assert rewards(again)[0] == first  # the first step is that of the first run
    assert len(rewards(again)) == 2
    assert json.loads(before) == again["before"]
    assert again["before"]["instruction"] == ["Name a river."] * 2 + ["Why?"] * 2
    assert "copied_4_grams" in capsys.readouterr().out
    assert (tmp_path / "run" / "grpo_trl.png").exists()
    assert again["copied"]("Name a river.", "Sure! Name a river: the Rhine.", n=3) == 1 / 4


def rewards(names):
    return [log["reward"] for log in names["trainer"].state.log_history if "reward" in log]


@pytest.mark.slow
def test_overlap_with_trl(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    found = run(monkeypatch, "overlap", "--steps", 1, "--max-tokens", 16)
    assert len(found["together"].rewards) == 16  # the example itself compares them
    assert "hidden" in capsys.readouterr().out
