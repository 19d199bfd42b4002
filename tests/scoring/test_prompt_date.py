"""Rewards on two days, with a model whose chat template writes today's date."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest

from flipfast import ConfigError, FlipConfig, FlipReward
from flipfast.cli import main
from flipfast.training.world import World
from tests.prompts.conftest import CLOCK, on_day

EMBEDDED = Path(__file__).parents[2] / "flipfast" / "assets" / "tiny-inverter"
TODAY = "{{ strftime_now('%A, %d %B %Y, %H:%M') }} {{ date_string }}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The embedded model, with the date in its prompts."""
    copy = Path(shutil.copytree(EMBEDDED, tmp_path / "model"))
    template = copy / "chat_template.jinja"
    template.write_text(TODAY + template.read_text("utf-8"), "utf-8")
    return copy


def prompts_and_scores(folder: Path, backend: str) -> tuple[list[str], Any]:
    rng, prompts = Random(5), []
    samples = [World(held_out=True).good(rng) for _ in range(6)]
    with FlipReward(str(folder), backend=backend, device="cpu", dtype="float32") as reward:
        generate = reward.inverter.generate

        def spy(requests: Any, *rest: Any) -> Any:
            prompts.extend(reward.inverter.decode(request.prompt_ids) for request in requests)
            return generate(requests, *rest)

        reward.inverter.generate = spy  # type: ignore[method-assign]
        batch = reward.score([s.instruction for s in samples], [s.response for s in samples])
        return prompts, batch.to_dicts()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["native", "transformers"])
def test_rewards_are_the_same_on_any_day(
    backend: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CLOCK, on_day(2))
    first = prompts_and_scores(folder, backend)
    monkeypatch.setattr(CLOCK, on_day(3))
    assert prompts_and_scores(folder, backend) == first
    assert len(first[0]) == 6
    assert all(p.startswith("Friday, 26 July 2024, 00:00 26 Jul 2024") for p in first[0])


@pytest.mark.parametrize("date", ["26 Jul 2024", "2024-02-30", "", None, 20240726])
def test_a_date_that_is_none_is_refused(date: Any) -> None:
    with pytest.raises(ConfigError, match="prompt_date must be a date such as '2024-07-26', not"):
        FlipConfig(prompt_date=date)


@pytest.mark.slow
@pytest.mark.parametrize("template", ["{% if %}", "{{ messages[-1].content | upper }}"])
def test_the_command_line_says_in_one_line_what_is_wrong(
    template: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "chat_template.jinja").write_text(template, "utf-8")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "a", "response": "b"}\n', "utf-8")
    assert main(["score", str(rows), "--model", str(folder), "--device", "cpu"]) == 2
    _, error = capfd.readouterr()
    assert error.startswith(f"flipfast: the chat template of '{folder}' ")
    assert error.count("\n") == 1
