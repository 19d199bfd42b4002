"""`flipfast score` with a scripted model: rows, resuming, wrong use."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flipfast import FlipReward
from flipfast.cli import main
from tests.prompts.conftest import make_tokenizer  # noqa: F401  (a fixture)
from tests.scripted import ScriptedInverter

ROWS: list[dict[str, Any]] = [
    {"id": 7, "instruction": "Name a river", "response": "Ebro"},
    {"instruction": "Name a river", "responses": ["Ebro", "nothing", None]},
    {"messages": [{"role": "user", "content": "Name a river"}], "response": "Ebro"},
    {"instruction": "Name a river", "response": "Ebro", "context": "user: hello"},
]


@pytest.fixture(autouse=True)
def scripted(make_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:  # noqa: F811
    """Stands in for the model: a prompt with "Ebro" comes from "Name a river", others fail."""
    given: list[dict[str, Any]] = []

    def build(**options: Any) -> FlipReward:
        given.append(options)

        def answer(prompt: str, request: Any) -> str:
            return "Name a river" if "Ebro" in prompt else ""

        inverter = ScriptedInverter(make_tokenizer(), answer)
        return FlipReward(inverter=inverter, style="direct", **options)

    monkeypatch.setattr("flipfast.cli.score.FlipReward", build)
    return given


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., str]:
    def write(*rows: Any) -> str:
        path = tmp_path / "in.jsonl"
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        path.write_bytes(b"\n".join(lines) + b"\n")
        return str(path)

    return write


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_row_comes_back_with_its_scores(source: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert main(["score", source(*ROWS), "--out", str(out)]) == 0
    first, second, third, fourth = read(out)
    assert first["id"] == 7
    assert (first["line"], first["reward"], first["status"]) == (1, 1.0, "ok")
    assert second["rewards"] == [1.0, None, None]
    assert second["status"] == ["ok", "empty", "contentless"]
    assert second["errors"] == [None, None, "responses[2]: there is no text in None"]
    assert second["inferred"] == ["Name a river", "", ""]
    assert third["reward"] == fourth["reward"] == 1.0
    assert fourth["n_prompt_tokens"] > first["n_prompt_tokens"]


def test_broken_lines_are_reported_and_the_rest_is_scored(
    source: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [
        b'{"instruction": "x", ',
        b"[1, 2]",
        b'{"instruction": "x"}',
        b'{"response": "x"}',
        b'{"instruction": 3, "response": "x"}',
        b'{"instruction": "x", "response": "\xff"}',
        b'{"instruction": "x", "responses": "abc"}',
        b'{"messages": [{"role": "system", "content": "x"}], "response": "x"}',
        b"[" * 100_000,
    ]
    out = tmp_path / "out.jsonl"
    assert main(["score", source(ROWS[0], b"", *broken, ROWS[0]), "--out", str(out)]) == 0
    rows = read(out)
    assert [row["line"] for row in rows] == [1, *range(3, 13)]
    assert rows[0]["reward"] == rows[-1]["reward"] == 1.0
    assert all(row["status"] == "error" and row["error"] for row in rows[1:-1])
    shown = capsys.readouterr().err
    assert all(f"line {number}: " in shown for number in range(3, 12))
    assert "line 7: instruction must be a string, got 3" in shown
    assert "2 ok" in shown


def test_an_array_and_other_forms_of_rows(tmp_path: Path, capsys: Any) -> None:
    rows = [
        {"prompt": "Name a river", "completion": [{"role": "assistant", "content": "Ebro"}]},
        {"conversations": [{"from": "human", "value": "Name"}, {"from": "gpt", "value": "Ebro"}]},
        {"instruction": "Name", "input": "a river", "output": "Ebro", "messages": None},
        {"prompt": "Name a river", "chosen": ["Ebro"], "rejected": ["none", "nothing"]},
    ]
    path = tmp_path / "in.json"
    path.write_text(json.dumps(rows, indent=1))
    assert main(["score", str(path)]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["line"] for row in found] == [1, 2, 3, 4]
    assert [row.get("reward") for row in found] == [1.0, pytest.approx(2 / 3), 1.0, None]
    assert found[3]["rewards"] == [1.0, None, None]
    assert {name: found[2][name] for name in rows[2]} == rows[2]


CALL = {"role": "assistant", "content": None, "tool_calls": [{"name": "Ebro", "arguments": "{}"}]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"response": None}, "response is None"),
        ({"response": [CALL]}, "response: it has only tool calls"),
        ({"response": [CALL, {"role": "tool", "content": "x"}]}, "response: it ends in a turn of"),
        (
            {"completion": {"role": "assistant", "content": "", "reasoning_content": "Ebro"}},
            "completion: its content is empty beside its reasoning_content",
        ),
    ],
)
def test_a_response_without_a_text_is_contentless(
    source: Any, row: Any, reason: str, capsys: Any
) -> None:
    path = source({"instruction": "Name a river", **row}, ROWS[0])
    assert main(["score", path, "--on-failure", "0.25"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out.splitlines()[0])
    assert (found["status"], found["reward"], found["inferred"]) == ("contentless", 0.25, "")
    assert found["error"].startswith(reason)
    assert f"line 1: {reason}" in shown.err


def test_tool_calls_are_text_if_asked_for(source: Any, capsys: Any) -> None:
    path = source({"instruction": "Name a river", "response": [CALL]})
    assert main(["score", path, "--tool-calls"]) == 0
    assert json.loads(capsys.readouterr().out)["reward"] == 1.0


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([b"broken", b"[1]"], "line 1: not JSON"),
        ([{"instruction": "x", "response": None}], "line 1: response is None"),
    ],
)
def test_a_run_without_any_score_fails(source: Any, rows: Any, error: str, capsys: Any) -> None:
    path = source(*rows)
    assert main(["score", path]) == 2
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == len(rows)
    assert f"flipfast: no row of {path} could be scored; {error}" in shown.err
    assert main(["score", source(*rows, ROWS[0])]) == 0


def test_a_file_scored_again_keeps_its_scores(source: Any, tmp_path: Path, capsys: Any) -> None:
    once, again, third = (tmp_path / f"{name}.jsonl" for name in ("once", "again", "third"))
    path = source({**ROWS[0], "line": "mine", "rewards": [2]}, b"broken", ROWS[1], ROWS[0])
    assert main(["score", path, "--out", str(once)]) == 0
    assert "the input's field rewards is kept as input_rewards" in capsys.readouterr().err
    first = read(once)
    assert (first[0]["line"], first[0]["input_line"], first[0]["input_rewards"]) == (1, "mine", [2])
    assert main(["score", str(once), "--out", str(again)]) == 0
    shown = capsys.readouterr().err
    assert (
        shown.count("the input's field reward is kept as input_reward: reward is the output's") == 1
    )
    second = read(again)
    assert second[0]["input_reward"] == first[0]["reward"] == second[0]["reward"] == 1.0
    assert (second[0]["input_input_line"], second[0]["input_line"]) == (1, "mine")
    assert second[1]["status"] == second[1]["input_status"] == "error"
    assert second[2]["input_rewards"] == [1.0, None, None]
    whole = again.read_bytes()
    again.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    assert main(["score", str(once), "--out", str(again), "--resume"]) == 0
    assert again.read_bytes() == whole
    assert main(["score", str(again), "--out", str(third)]) == 0
    assert len(read(third)[0]) > len(second[0])


def test_numbers_that_json_cannot_hold_are_null(source: Any, tmp_path: Path, capsys: Any) -> None:
    rows = [
        b'{"instruction": "Name a river", "response": "Ebro", "a": [NaN, {"b": -Infinity}]}'
    ] * 3
    path, out = source(*rows, ROWS[0]), tmp_path / "out.jsonl"
    assert main(["score", path, "--out", str(out)]) == 0
    assert capsys.readouterr().err.count("that JSON cannot hold") == 1
    whole = out.read_bytes()
    found = [json.loads(line, parse_constant=pytest.fail) for line in whole.splitlines()]
    assert [row.get("a") for row in found] == [[None, {"b": None}]] * 3 + [None]
    out.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    assert main(["score", path, "--out", str(out), "--resume"]) == 0
    assert out.read_bytes() == whole


def test_standard_input_and_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(json.dumps(ROWS[0]).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["score", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["reward"] == 1.0


@pytest.mark.parametrize("kept", [0, 1, 40, -1, -30, None])
def test_resuming_gives_the_same_file(source: Any, tmp_path: Path, kept: int | None) -> None:
    """Cut the output anywhere, as an interruption does, and go on."""
    path = source(*ROWS, b"broken", *ROWS)
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    assert main(["score", path, "--out", str(whole)]) == 0
    out.write_bytes(whole.read_bytes()[:kept])
    assert main(["score", path, "--out", str(out), "--resume"]) == 0
    assert out.read_bytes() == whole.read_bytes()


def test_an_interruption_keeps_the_finished_rows(
    source: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("flipfast.cli.row_stream._RESPONSES_A_CHUNK", 2)
    score = FlipReward.score

    def interrupted(self: FlipReward, *columns: Any) -> Any:
        if out.exists() and len(out.read_text().splitlines()) >= 4:
            raise KeyboardInterrupt
        return score(self, *columns)

    out, path = tmp_path / "out.jsonl", source(*ROWS, *ROWS)
    monkeypatch.setattr(FlipReward, "score", interrupted)
    assert main(["score", path, "--out", str(out)]) == 130
    assert "finished rows are kept" in capsys.readouterr().err
    assert 4 <= len(read(out)) < 8
    monkeypatch.setattr(FlipReward, "score", score)
    assert main(["score", path, "--out", str(out), "--resume"]) == 0
    assert [row["line"] for row in read(out)] == list(range(1, 9))


def test_options_reach_the_reward(source: Any, scripted: Any, capsys: Any) -> None:
    arguments = ["--temperature", "0.5", "--seed", "3", "--on-failure", "0", "--thinking"]
    arguments += ["--json", "free", "--no-early-stop"]
    assert main(["score", source(ROWS[1]), *arguments]) == 0
    expected = {"temperature": 0.5, "seed": 3, "on_failure": 0.0, "thinking": True}
    assert scripted == [{**expected, "json": "free", "early_stop": False}]
    assert json.loads(capsys.readouterr().out)["rewards"] == [1.0, 0.0, 0.0]


def test_an_existing_output_is_not_lost(source: Any, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text('{"dear": "to me"}\n')
    assert main(["score", source(ROWS[0]), "--out", str(out)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["score", source(ROWS[0]), "--out", str(out), "--resume"]) == 2
    assert "not written by flipfast" in capsys.readouterr().err
    assert out.read_text() == '{"dear": "to me"}\n'
    assert main(["score", source(ROWS[0]), "--out", str(out), "--overwrite"]) == 0
    assert read(out)[0]["reward"] == 1.0
    assert main(["score", source(ROWS[1]), "--out", str(out), "--resume"]) == 2
    assert "other files?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "nowhere.jsonl"], "flipfast: cannot read nowhere.jsonl: No such file"),
        (["score", "."], "flipfast: cannot read .: Is a directory"),
        (["score", "-", "--resume"], "flipfast: --resume goes with a file"),
        (["score", "-", "--out", "no/such/folder/x"], "flipfast: cannot write no/such/folder/x"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(message)
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["scre"], ["score"], ["score", "x", "--top-k", "a"], ["demo", "--nope"]]
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_another_scoring_is_asked_for_and_refused_where_it_cannot_be(
    source: Any, scripted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--scoring", "likelihood", "--likelihood-baseline"]
    assert main(["score", source(ROWS[0]), *arguments]) == 2
    assert scripted == [{"scoring": "likelihood", "likelihood_baseline": True}]
    shown = capsys.readouterr().err
    assert shown.startswith("flipfast: scoring='likelihood' needs backend='native'")
    assert shown.count("\n") == 1


def test_copies_and_empty_responses(source: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    asked = "Name a river in Spain"
    row = {"instruction": asked, "responses": ["Ebro", f"{asked}: Ebro", "..."]}
    arguments = ["--copy-guard", "discount", "--min-response-words", "1"]
    assert main(["score", source(row), "--out", str(out), *arguments]) == 0
    (found,) = read(out)
    assert found["copied"] == [0.0, 1.0, None]
    assert found["status"] == ["ok", "ok", "contentless"]
    assert found["rewards"][1:] == [0.0, None]
