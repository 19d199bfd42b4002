"""`flipfast credit`: parts and their credits, of a response and of a conversation."""

import json

import pytest

from flipfast import FlipReward
from flipfast.cli import main
from flipfast.scoring.credit import credit, turn_credit

INSTRUCTION, RESPONSE = "Describe a river.", "It is a river. It ends at the sea!\x07"
TRACE = [
    {"role": "user", "content": INSTRUCTION},
    {"role": "assistant", "content": "It is a river."},
    {"role": "tool", "content": "the Ebro"},
    {"role": "assistant", "content": ""},
]


@pytest.fixture(autouse=True)
def embedded(monkeypatch):
    monkeypatch.setattr("flipfast.cli.credit.best_at_hand", lambda: "embedded")


def test_sentences(capsys):
    assert main(["credit", INSTRUCTION, RESPONSE, "--scoring", "likelihood"]) == 0
    with FlipReward(scoring="likelihood") as reward:
        found = credit(reward, INSTRUCTION, RESPONSE)
    first, second = (f"{part.credit:+.4f}" for part in found.parts)
    empty, whole = found.beginnings.rewards[0], found.beginnings.rewards[-1]
    assert capsys.readouterr().out.splitlines() == [
        f"{first}  It is a river.",
        f"{second}  It ends at the sea!\\x07",
        "",
        f"reward {whole:.4f}; of an empty response {empty:.4f}",
    ]


def test_turns(tmp_path, capsys):
    file = tmp_path / "trace.json"
    file.write_text(json.dumps(TRACE))
    assert main(["credit", "--messages", str(file)]) == 0
    with FlipReward() as reward:
        found = turn_credit(reward, TRACE[:1], TRACE[1:])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"{found.parts[0].credit:+.4f}  It is a river.", "+0.0000  (no text)"]


def test_what_failed_is_told(capsys):
    assert main(["credit", INSTRUCTION, RESPONSE, "--min-response-words", "4"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("   none  It is a river.\n")
    assert shown.endswith("of an empty response none\n")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([INSTRUCTION], "give an instruction and a response"),
        ([INSTRUCTION, RESPONSE, "--messages", "x.json"], "--messages stands alone"),
        (["--messages", "missing.json"], "cannot read missing.json"),
    ],
)
def test_wrong_arguments(arguments, reason, capsys):
    assert main(["credit", *arguments]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{", "is no JSON"), ('{"a": 1}', "holds no list"), ("[]", "no user turn")],
)
def test_files_that_are_no_conversation(content, reason, tmp_path, capsys):
    file = tmp_path / "trace.json"
    file.write_text(content)
    assert main(["credit", "--messages", str(file)]) == 2
    assert reason in capsys.readouterr().err
