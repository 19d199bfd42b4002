"""Rewards on two days, with a model whose chat template writes today's date."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from flipfast import ConfigError, FlipConfig, FlipReward
from flipfast.cli import main
from flipfast.quality.raters import load_rater
from flipfast.training.world import World

EMBEDDED = Path(__file__).parents[2] / "flipfast" / "assets" / "tiny-inverter"
TODAY = "{{ strftime_now('%A, %d %B %Y, %H:%M') }} {{ date_string }}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The embedded model, with the date in its prompts."""
    copy = Path(shutil.copytree(EMBEDDED, tmp_path / "model"))
    template = copy / "chat_template.jinja"
    template.write_text(TODAY + template.read_text("utf-8"), "utf-8")
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["native", "transformers"])
def test_rewards_are_the_same_on_any_day(
    backend: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = Random(5)
    samples = [World(held_out=True).good(rng) for _ in range(6)]
    texts = [s.instruction for s in samples], [s.response for s in samples]
    found = []
    for day in (2, 3):

        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None, day: int = day) -> datetime:
                return datetime(2026, 5, day, 12, 30, 59)

        monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Clock)
        with FlipReward(str(folder), backend=backend, device="cpu", dtype="float32") as reward:
            prompts: list[str] = []
            generate = reward.inverter.generate

            def spy(requests: Any, *rest: Any, seen: Any = (prompts, generate, reward)) -> Any:
                texts_seen, run, owner = seen
                texts_seen += [owner.inverter.decode(r.prompt_ids) for r in requests]
                return run(requests, *rest)

            monkeypatch.setattr(reward.inverter, "generate", spy)
            batch = reward.score(*texts)
            load_rater("pointwise", reward)
        assert all(p.startswith("Friday, 26 July 2024, 00:00 26 Jul 2024") for p in prompts)
        found.append((prompts, batch.inferred, batch.rewards))
    assert found[0] == found[1]
    assert len(found[0][0]) == 6


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
