"""The examples run as they are, on the embedded model."""

import runpy
import sys
from pathlib import Path

import pytest

from tests.trainers import standins

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ALL = sorted(path.stem.removeprefix("trainer_") for path in EXAMPLES.glob("trainer_*.py"))
NEEDS = {"skyrl": "skyrl_gym", "nemo_rl": "ray"}


def test_each_trainer_has_one():
    assert ALL == ["nemo_rl", "open_instruct", "openrlhf", "skyrl", "slime", "verifiers", "verl"]


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
