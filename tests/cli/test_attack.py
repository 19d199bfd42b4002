"""`flipfast attack`: with the embedded model, and with raters whose answers are known."""

from __future__ import annotations

import json
import re

import pytest

from flipfast.cli import main
from tests.quality.attacks.toys import Toy

GROUPS = [
    {"instruction": "Name a river.", "responses": ["The Ebro: a river.", "Note: the Tagus."]},
    {"instruction": "Name a lake.", "responses": []},
    {"instruction": "Name a town.", "response": "Toledo"},
]
TOYS = {
    "colons": lambda text: float(text.count(":")),
    "length": lambda text: float(len(text)),
    "never": lambda _: None,
}


@pytest.fixture
def toys(monkeypatch):
    """Raters by the names of TOYS, beside any model."""
    monkeypatch.setattr("flipfast.cli.attack.load_rater", lambda name, _: Toy(TOYS[name], name))


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "groups.jsonl"
    path.write_text("".join(json.dumps(group) + "\n" for group in GROUPS))
    return str(path)


@pytest.mark.slow
def test_the_embedded_reward(source, tmp_path, capsys):
    out = tmp_path / "out.json"
    chosen = ["--attack", "copying/alone", "--attack", "keys/colon", "--attack", "tokens/model"]
    assert main(["attack", source, "--rater", "flip", *chosen, "--json-out", str(out)]) == 0
    shown = capsys.readouterr().out
    for word in ("copying/alone", "keys/colon", "tokens/model", "3 honest responses in 2 groups"):
        assert word in shown
    assert "(1 without responses left out), model embedded" in shown
    assert max(map(len, shown.splitlines()[:-1])) <= 100
    content = json.loads(out.read_text())
    assert (content["n_groups"], content["n_left_out"], content["climbs"]) == (2, 1, [])
    tokens = content["attacks"][-1]
    assert (tokens["attack"], tokens["knows_instruction"]) == ("tokens/model", True)
    assert [pair["group"] for pair in tokens["pairs"]] == [0, 0, 1]
    assert "<|assistant|>" in tokens["pairs"][0]["attacked"]
    scores = tokens["raters"][0]["scores"]
    assert len(scores["honest"]) == len(scores["attacked"]) == 3


def test_several_raters(toys, source, tmp_path, capsys):
    out = tmp_path / "out.json"
    raters = [word for name in TOYS for word in ("--rater", name)]
    chosen = ["--attack", "keys/thought", "--climb", "4", "--seed", "5"]
    assert main(["attack", source, *raters, *chosen, "--json-out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"honest score +0\.67 +13\.33 +- ", shown)
    assert "+0.33  33 %" in shown
    assert "100 % failed" in shown
    assert "Climbing" in shown
    content = json.loads(out.read_text())
    assert content["options"]["seed"] == 5
    colons, length, never = content["attacks"][0]["raters"]
    assert colons["rater"] == "colons"
    assert colons["scores"]["honest"] == [1, 1, 0]
    assert colons["figures"]["beats"] == pytest.approx(1 / 3)
    assert colons["figures"]["ties"] == pytest.approx(2 / 3)
    assert length["figures"]["change"] == pytest.approx(16 - (18 + 16 + 6) / 3)
    assert never["figures"]["beats"] is None
    assert never["figures"]["attacked_failed"] == 1.0
    assert [one["rater"] for one in content["climbs"]] == list(TOYS)
    rewards = content["climbs"][1]["mean_rewards"]
    assert len(rewards) == 5
    assert rewards == sorted(rewards)
    assert rewards[-1] > rewards[0]
    assert content["climbs"][2]["mean_rewards"] == [None] * 5


def test_strings_and_a_limit(toys, source, tmp_path):
    strings, out = tmp_path / "strings.txt", tmp_path / "out.json"
    strings.write_text("{response}: {instruction}\n")
    chosen = ["--strings", str(strings), "--attack", "strings", "--limit", "1"]
    assert main(["attack", source, "--rater", "colons", *chosen, "--json-out", str(out)]) == 0
    (attack,) = json.loads(out.read_text())["attacks"]
    texts = [pair["attacked"] for pair in attack["pairs"]]
    assert texts == ["The Ebro: a river.: Name a river.", "Note: the Tagus.: Name a river."]


def test_five_raters_fit_the_width(toys, source, capsys, monkeypatch):
    names = ["flip", "pointwise:temperature=0.7", "pairwise", "listwise", "p_true"]
    monkeypatch.setitem(TOYS, "flip", lambda text: len(text) if len(text) % 2 else None)
    for name in names[1:]:
        monkeypatch.setitem(TOYS, name, TOYS["flip"])
    assert main(["attack", source, *(word for name in names for word in ("--rater", name))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= 100
    assert "…" not in "".join(lines)


def test_attacks_that_change_nothing(toys, source, capsys):
    assert main(["attack", source, "--rater", "length", "--attack", "content/first_sentence"]) == 0
    shown = capsys.readouterr().out
    assert "(changes 0 of 3)" in shown
    assert "no pairs" in shown


@pytest.mark.slow
def test_a_plot(toys, source, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "plot.png"
    raters = [word for name in TOYS for word in ("--rater", name)]
    chosen = ["--attack", "copying", "--climb", "2"]
    assert main(["attack", source, *raters, *chosen, "--plot", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jsonl"], "cannot read nowhere.jsonl"),
        (["--attack", "magic"], "no attack 'magic': use one of"),
        (["--strings", "nowhere.txt"], "cannot read nowhere.txt"),
        (["--limit", "0"], "--limit must be at least 1, not 0"),
        (["--climb", "-1"], "--climb must be 0 or more steps, not -1"),
        (["--rater", "jury"], "no rater 'jury'"),
        (["--json-out", "no/such/folder/x"], "cannot write no/such/folder/x"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert main(["attack", *arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_groups_without_any_response(tmp_path, capsys):
    path = tmp_path / "none.jsonl"
    path.write_text('{"instruction": "Name a lake.", "responses": []}\n')
    assert main(["attack", str(path), "--rater", "flip"]) == 2
    assert "holds no responses: there is nothing to attack" in capsys.readouterr().err
