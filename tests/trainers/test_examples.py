"""The examples run as they are, on the embedded model."""

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
    # TRL's is a whole run, grpo_trl.py; verl's manager takes the place of the function in verl's.
    assert {*ALL, "trl", "verl_manager"} == trainers


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
