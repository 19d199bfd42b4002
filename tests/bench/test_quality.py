"""What docs/quality.md is made from: pairs of real responses, and tables of what commands keep."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from bench import quality
from bench.quality_report import report
from flipfast.cli.main import main as flipfast
from flipfast.quality.evaluation.preferences import read_preferences

RATES = {"strong": 50.0, "middling": 20.0, "weak": 5.0}


def groups() -> list[dict[str, Any]]:
    return [
        {
            "instruction": f"Do {i}",
            "models": ["weak", "unheard of", "strong", "middling"],
            "responses": [f"weak {i}", "?", f"strong {i} " + "x" * i, f"middling {i}"],
        }
        for i in range(4)
    ]


def test_pairs_of_real_responses(tmp_path: Path) -> None:
    unranked = {"instruction": "Do 5", "models": ["weak", "new"], "responses": ["a", "b"]}
    rows = list(quality.items([*groups(), unranked], RATES))
    assert [row["subset"] for row in rows] == ["relevance", "strength"] * 4
    for i in range(4):
        near, weak = rows[2 * i : 2 * i + 2]
        assert near["prompt"] == weak["prompt"] == f"Do {i}"
        assert near["chosen"] == weak["chosen"] == f"strong {i} " + "x" * i
        assert weak["rejected"] == f"weak {i}"
        assert f" {i}" not in near["rejected"]  # another group's
        assert near["rejected"] != "?"
    assert rows[0]["rejected"] in {"strong 1 x", "middling 1"}
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(read_preferences(str(path)).items) == 8


def test_the_win_rates_name_their_source() -> None:
    kept = json.loads(quality.WIN_RATES.read_text("utf-8"))
    assert "AlpacaEval" in kept["source"]
    assert all(0 <= rate <= 100 for rate in kept["win_rates"].values())
    assert "NullModel" not in kept["win_rates"]


@pytest.mark.parametrize("name", [n for n, (_, a) in quality.PARTS.items() if "flipfast " in a])
def test_a_part_is_a_command_that_exists(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, arguments = quality.PARTS[name]
    words = shlex.split(arguments.replace("KEPT", "--json-out kept.json"))[2:]
    monkeypatch.chdir("/")
    assert flipfast([*words, "--model", "embedded"]) == 2  # its files are not here
    said = capsys.readouterr().err
    assert "No such file" in said or "cannot read" in said or "cannot be" in said, said


def interval(value: float, around: list[float] | None = None) -> dict[str, Any]:
    return {"value": value, "over_items": around, "over_seeds": None}


def test_tables_are_made_of_what_is_kept(tmp_path: Path) -> None:
    figures = {
        "strict": interval(0.5, [0.25, 0.75]),
        "split": interval(0.625),
        "tie_rate": 0.25,
        "failure_rate": 0.125,
    }
    run = {"statuses": [["ok", "prose"], ["unparsed+response_cut", "prose"]]}
    kept = {
        "raters": [
            {"name": "flip", "subsets": {"Natural": figures}, "mean": figures, "runs": [run]}
        ]
    }
    (tmp_path / "eval-small.json").write_text(json.dumps(kept))
    real = {"matched_f1": 0.375, "shuffled_f1": 0.0625, "auc": 0.9375, "best_of_8": 0.75}
    of_group = {"responses": 8, "reward": real | {"win_rate": 25.5}, "first_15_words": real}
    of_group["statuses"] = {"ok": 7, "prose": 1}
    shown = {"groups": of_group | {"any_response": {"win_rate": 21.25}}}
    (tmp_path / "real-small.txt").write_text(json.dumps(shown))
    (tmp_path / "drafts-base.txt").write_text("Traceback: not JSON")
    text = report(tmp_path, ["real-small", "eval-small", "drafts-base", "attack-small"])
    assert "| small | 0.375 | 0.062 | 0.938 | 0.750 | 25.500 | 7 ok, 1 prose |" in text
    assert "| first 15 words, as small | 0.375 | 0.062 | 0.938 | 0.750 |  |  |" in text
    assert "| any response, as small |  |  |  |  | 21.250 |  |" in text
    assert "| small, mean | flip" not in text  # there is one subset
    assert "| small, Natural | flip | 50.0 (25.0-75.0) | 62.5 | 25.0 | 12.5 |" in text
    assert "drafts" not in text
