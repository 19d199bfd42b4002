"""`flipfast explain`: what is printed and written, with and without a model."""

import pytest

from flipfast import FlipReward
from flipfast.cli import main
from tests.prompts.conftest import make_tokenizer  # noqa: F401  (a fixture)
from tests.scripted import ScriptedInverter

TRUE, INFERRED = "Name the longest river in Spain", "Name a river <b>in</b> Spain, Spain"
ANSWERS = {"Ebro": INFERRED, "none": ""}


@pytest.fixture
def no_model(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("flipfast.cli.explain.FlipReward", refuse)


@pytest.fixture
def scripted(make_tokenizer, monkeypatch):  # noqa: F811
    def build(config):
        def answer(prompt, request):
            return next(text for word, text in ANSWERS.items() if word in prompt)

        config = config.with_options({"style": "direct"})
        return FlipReward(config, inverter=ScriptedInverter(make_tokenizer(), answer))

    monkeypatch.setattr("flipfast.cli.explain.FlipReward", build)


@pytest.fixture(autouse=True)
def embedded(monkeypatch):
    monkeypatch.setattr("flipfast.cli.explain.best_at_hand", lambda: "embedded")


def test_marks_and_figures_without_a_model(no_model, capsys, tmp_path):
    page = tmp_path / "page.html"
    assert main(["explain", TRUE, "--inferred", INFERRED, "--html", str(page)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "Name the [-longest-] river [-in-] Spain"
    assert lines[3] == "Name a river <{+b>in</b+}> Spain, {+Spain+}"
    assert lines[5:] == [
        "precision 0.6000 (3 of 5 inferred words)",
        "recall    0.6000 (3 of 5 words of the instruction)",
        "word F1   0.6000",
    ]
    text = page.read_text("utf-8")
    assert '<mark class="missing">longest</mark>' in text
    assert '<mark class="extra">b&gt;in&lt;/b</mark>' in text


def test_a_response_is_inverted(scripted, capsys, tmp_path):
    page = tmp_path / "page.html"
    assert main(["explain", TRUE, "It is the Ebro.", "--html", str(page)]) == 0
    shown = capsys.readouterr().out
    assert "[-longest-]" in shown
    assert shown.endswith("reward    0.6000\nstatus    ok\n")
    assert "It is the Ebro." in page.read_text("utf-8")


def test_a_failure_is_told(scripted, capsys):
    assert main(["explain", TRUE, "none"]) == 0
    shown = capsys.readouterr().out
    assert "(nothing)" in shown
    assert "reward    none\nstatus    empty: no instruction was inferred\n" in shown


def test_another_metric_is_told_beside_the_words(scripted, no_model, capsys):
    assert main(["explain", TRUE, "--inferred", INFERRED, "--metric", "rouge_l"]) == 0
    assert "; the marks are those of word F1" in capsys.readouterr().out


def test_a_reward_of_another_metric(scripted, capsys):
    assert main(["explain", TRUE, "Ebro", "--metric", "f_beta:2"]) == 0
    assert "reward    0.6000 (f_beta:2; the marks: word F1)" in capsys.readouterr().out


def test_several_samples(scripted, capsys):
    assert main(["explain", TRUE, "Ebro", "--samples", "2", "--temperature", "1"]) == 0
    shown = capsys.readouterr().out
    assert "(mean of 2 inversions; shown: the first that did not fail)" in shown
    assert "agreement 1.0000" in shown


def test_the_likelihood_reward(capsys):
    options = ["--scoring", "likelihood", "--likelihood-baseline"]
    assert main(["explain", TRUE, "The Ebro is the longest river in Spain.", *options]) == 0
    shown = capsys.readouterr().out
    assert "(mean log-probability of the true instruction's tokens, less that without" in shown
    assert "forced_f1 " in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([TRUE], "give a response, or with --inferred"),
        ([TRUE, "Ebro", "--inferred", INFERRED], "not both"),
        ([TRUE, "--inferred", INFERRED, "--context", "x"], "--context and --scoring go with"),
        ([TRUE, "--inferred", INFERRED, "--scoring", "likelihood"], "go with a response"),
        ([TRUE, "--inferred", INFERRED, "--metric", "token_f1"], "token_f1 needs a model"),
        ([TRUE, "--inferred", INFERRED, "--metric", "guess"], "there is no metric 'guess'"),
        ([TRUE, "--inferred", INFERRED, "--html", "no/such/x"], "cannot write no/such/x"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(no_model, arguments, message, capsys):
    assert main(["explain", *arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
