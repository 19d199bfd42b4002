"""`flipfast best-of-n` with a scripted model: rows, the summary, wrong use."""

import json

import pytest

from flipfast import FlipReward
from flipfast.cli import main
from tests.prompts.conftest import make_tokenizer  # noqa: F401  (a fixture)
from tests.scripted import ScriptedInverter

ANSWERS = {"Ebro": "Name a river", "Tagus": "Name a river", "Elbe": "Name it", "none": ""}


@pytest.fixture(autouse=True)
def scripted(make_tokenizer, monkeypatch):  # noqa: F811
    def build(**options):
        def answer(prompt, request):
            return next((text for word, text in ANSWERS.items() if word in prompt), "bread")

        options.setdefault("style", "direct")
        return FlipReward(inverter=ScriptedInverter(make_tokenizer(), answer), **options)

    monkeypatch.setattr("flipfast.cli.best_of_n.FlipReward", build)


@pytest.fixture
def run(tmp_path, capsys):
    """A function that gives the output rows, and what stood on standard error."""

    def call(rows, *options):
        path = tmp_path / "in.jsonl"
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n")
        assert main(["best-of-n", str(path), *options]) == 0
        shown = capsys.readouterr()
        return [json.loads(line) for line in shown.out.splitlines()], shown.err

    return call


def row(*responses, **fields):
    return {"instruction": "Name a river", "responses": list(responses), **fields}


def test_rows_come_back_with_their_best(run):
    (found,), _ = run([row("bread", "Elbe", "Ebro", "none", id=7)])
    assert (found["id"], found["line"], found["status"]) == (7, 1, "ok")
    assert (found["best"], found["best_response"], found["tied"]) == (2, "Ebro", 1)
    assert found["scores"] == [0.0, 0.5, 1.0, None]
    assert found["statuses"] == ["ok", "ok", "ok", "empty"]
    assert found["errors"] == [None] * 4
    assert found["rater"] == "flip"
    assert found["responses"] == ["bread", "Elbe", "Ebro", "none"]


def test_bad_lines_and_small_groups_keep_nobody_from_a_best(run):
    rows = [
        row("Elbe", "Ebro"),
        "{broken",
        "",
        row(),
        row("none", "none, too"),
        {"instruction": "Name a river"},
        {"instruction": "Name a river", "response": "Elbe"},
        {"messages": [{"role": "user", "content": "Name a river"}], "responses": ["x", "Ebro"]},
    ]
    found, shown = run(rows)
    assert [one["line"] for one in found] == [1, 2, 4, 5, 6, 7, 8]
    assert [one["best"] for one in found] == [1, None, None, None, None, 0, 1]
    statuses = ["ok", "error", "no_responses", "no_scores", "error", "ok", "ok"]
    assert [one["status"] for one in found] == statuses
    assert "not JSON" in found[1]["error"]
    assert "line 2: not JSON" in shown
    assert "5 groups, 7 responses" in shown
    assert "2 responses failed, 2 groups without a best, 2 broken lines" in shown


def test_a_response_without_a_text_is_never_the_best(run):
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}
    rows = [row(None, "Elbe", [call], "Ebro"), row(None), row(None, "none"), row(None, None)]
    found, shown = run([*rows, row(None, "Elbe", status="old", scores=[1])])
    assert [one["best"] for one in found] == [3, None, 1, None, 1]
    assert [one["status"] for one in found] == ["ok", "no_scores", "ok", "no_scores", "ok"]
    assert found[0]["scores"] == [None, 0.5, None, 1.0]
    assert found[0]["statuses"] == ["contentless", "ok", "contentless", "ok"]
    assert found[0]["errors"][0] == "responses[0]: there is no text in None"
    assert found[0]["errors"][1] is None
    assert (found[4]["input_status"], found[4]["input_scores"]) == ("old", [1])
    assert "line 1: responses[2]: it has only tool calls" in shown
    assert "5 groups, 11 responses" in shown
    assert "8 responses failed, 2 groups without a best" in shown


def test_a_run_without_any_score_fails(tmp_path, capsys):
    path = tmp_path / "in.json"
    path.write_text(json.dumps([row(None), {"instruction": "x"}]))
    assert main(["best-of-n", str(path)]) == 2
    assert "could be scored; line 1: responses[0]: there is no" in capsys.readouterr().err


def test_the_order_of_responses_does_not_count_in_a_tie(run):
    found, shown = run([row("Tagus", "Ebro", "Elbe"), row("Elbe", "Ebro", "Tagus", "Tagus")])
    assert found[0]["best_response"] == found[1]["best_response"]
    assert [one["tied"] for one in found] == [2, 2]
    assert "2 groups with a tie" in shown


def test_pruning_names_the_same(run):
    rows = [row("Tagus", "Ebro", "Elbe"), row(), row("Elbe", "Ebro", "Tagus"), row("none")]
    whole, _ = run(rows)
    pruned, shown = run(rows, "--prune")
    assert [one["best"] for one in pruned] == [one["best"] for one in whole]
    assert [one["tied"] for one in pruned] == [None] * 4
    assert "0 pruned, which spared at most 0 tokens" in shown


def test_options_of_the_rater_and_of_the_model(run):
    (found,), _ = run([row("none", "Elbe")], "--rater", "flip:metric=char_f1", "--on-failure", "0")
    assert found["rater"] == "flip:metric=char_f1"
    assert found["scores"][0] == 0.0
    assert 0.5 < found["scores"][1] < 1.0


def test_resuming_gives_the_same_file(run, tmp_path):
    rows = [row("Elbe", "Ebro"), "{broken", row(), row("Tagus")]
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    run(rows, "--out", str(whole))
    cut.write_bytes(whole.read_bytes()[:-40])
    run(rows, "--out", str(cut), "--resume")
    assert cut.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jsonl"], "cannot read nowhere.jsonl"),
        (["-", "--resume"], "--resume goes with a file"),
        (["IN", "--rater", "jury"], "there is no rater 'jury'"),
        (["IN", "--rater", "flip:colour=red"], "colour"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(arguments, message, tmp_path, capsys):
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(row("Ebro")) + "\n")
    arguments = [str(path) if one == "IN" else one for one in arguments]
    assert main(["best-of-n", *arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_judges_are_not_pruned(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("flipfast.cli.best_of_n.load_rater", lambda spec, reward: object())
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(row("Ebro")) + "\n")
    assert main(["best-of-n", str(path), "--prune", "--rater", "pairwise"]) == 2
    assert "--prune ends outputs of the FLIP reward, not those of 'pairwise'" in (
        capsys.readouterr().err
    )
