"""`flipfast eval` with raters of known answers: the tables, the files, wrong use."""

import json
import sys

import pytest

from flipfast.cli import main
from tests.quality.evaluation.raters import FakeRater, always_fails, good_wins, one_to_ten

ROWS = [
    {
        "id": i,
        "prompt": f"task {i}",
        "chosen": ["good answer"],
        "rejected": ["bad", "bad answer", "bad and long answer"],
        "subset": "Focus" if i < 6 else "Math",
    }
    for i in range(10)
]
RATERS = {
    "perfect": lambda: FakeRater(good_wins, name="perfect"),
    "random": lambda: FakeRater(one_to_ten, name="random", uses_seed=True),
    "failing": lambda: FakeRater(always_fails, name="failing"),
}


class FakeReward:
    """Stands where the model is loaded."""

    inverter = None

    def __init__(self, config):
        self.config = config

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


@pytest.fixture
def loaded(monkeypatch):
    """Raters that were loaded, in order, and the configurations of models."""
    from flipfast.errors import ConfigError

    raters, configs = [], []

    def load_rater(spec, reward):
        if spec not in RATERS:
            raise ConfigError(f"there is no rater {spec!r}")
        raters.append(RATERS[spec]())
        return raters[-1]

    def load_reward(config):
        configs.append(config)
        return FakeReward(config)

    monkeypatch.setattr("flipfast.cli.evaluate.load_rater", load_rater)
    monkeypatch.setattr("flipfast.cli.evaluate.FlipReward", load_reward)
    return raters, configs


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def use(*names):
    return [word for name in names for word in ("--rater", name)]


def test_tables_and_a_file(loaded, source, tmp_path, capsys):
    with source.open("a") as file:
        file.write(json.dumps({**ROWS[0], "id": "alone", "rejected": []}) + "\n")
    out = tmp_path / "out.json"
    arguments = ["eval", str(source), *use("perfect", "failing"), "--json-out", str(out)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    for text in (
        "perfect",
        "failing",
        "Focus",
        "Math",
        "mean",
        "all as one",
        "100.0/100.0",
        "0.0/25.0",
        "length-controlled",
        "Model embedded, 10 items",
        "chance is 25.0 %",
        "left out): 1.",
        "failing: 40 responses without a score: 40 unparsed",
        "tiny one",
        "400",
        "80",
    ):
        assert text in shown
    content = json.loads(out.read_text())
    assert content["no_rejected"] == [11]
    assert content["options"]["model"] == "embedded"
    assert len(content["items"]) == 10
    assert content["items"][7] == {
        "line": 8,
        "id": "7",
        "subset": "Math",
        "chosen_characters": [11],
        "rejected_characters": [3, 10, 19],
    }
    perfect, failing = content["raters"]
    assert perfect["mean"]["strict"] == {"value": 1, "over_items": [1, 1], "over_seeds": None}
    assert perfect["runs"][0]["scores"][0] == [1.0, 0.0, 0.0, 0.0]
    assert failing["runs"][0]["statuses"][0] == ["unparsed"] * 4
    assert failing["runs"][0]["scores"][9] == [None] * 4


def test_another_model_is_not_called_tiny(loaded, source, capsys):
    assert main(["eval", str(source), *use("perfect"), "--model", "some/model"]) == 0
    shown = capsys.readouterr().out
    assert "Model some/model" in shown
    assert "tiny" not in shown
    assert [config.model for config in loaded[1]] == ["some/model"]


def test_seeds_begin_with_that_of_the_options(loaded, source, capsys):
    arguments = ["--seeds", "3", "--seed", "5", *use("random", "perfect")]
    assert main(["eval", str(source), *arguments]) == 0
    sampled, greedy = loaded[0]
    assert [seed for _, seed in sampled.calls[1:]] == [5, 6, 7]  # behind the first, to set up
    assert [seed for _, seed in greedy.calls[1:]] == [5]
    assert "over seeds" in capsys.readouterr().out


def test_one_seed_has_no_row_for_seeds(loaded, source, capsys):
    assert main(["eval", str(source), *use("random")]) == 0
    assert "over seeds" not in capsys.readouterr().out


def test_a_limit(loaded, source, capsys):
    assert main(["eval", str(source), *use("perfect"), "--limit", "4"]) == 0
    assert [n for n, _ in loaded[0][0].calls] == [1, 8]
    assert "8 items" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_plot(loaded, source, tmp_path, suffix):
    pytest.importorskip("matplotlib")
    source.write_text(json.dumps({**ROWS[0], "subset": "$x_$ and more"}) + "\n")
    out = tmp_path / f"plot.{suffix}"
    assert main(["eval", str(source), *use("perfect", "random"), "--plot", str(out)]) == 0
    assert {"png": b"\x89PNG", "svg": b"<svg"}[suffix] in out.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jsonl"], "cannot read nowhere.jsonl"),
        (["SOURCE", "--seeds", "0"], "--seeds must be at least 1"),
        (["SOURCE", "--limit", "0"], "--limit must be at least 1"),
        (["SOURCE", "--json-out", "no/such/folder/x"], "cannot write no/such/folder/x"),
        (["SOURCE", "--plot", "plot.txt"], "the suffix must be one of"),
        (["SOURCE", "--rater", "perfect", "--rater", "jury"], "there is no rater 'jury'"),
        (["SOURCE", "--temperature", "1", "--samples", "0"], "samples must be at least 1"),
    ],
)
def test_wrong_use_is_one_line_and_nothing_runs(arguments, message, loaded, source, capsys):
    pytest.importorskip("matplotlib")
    words = [str(source) if word == "SOURCE" else word for word in arguments]
    assert main(["eval", *words]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
    assert all(rater.calls == [] for rater in loaded[0])


def test_a_bad_row_shows_before_a_model_is_loaded(loaded, source, capsys):
    with source.open("a") as file:
        file.write('{"prompt": "Hi"\n')
    assert main(["eval", str(source), *use("perfect")]) == 2
    assert "rows.jsonl, line 11: not JSON" in capsys.readouterr().err
    assert loaded == ([], [])


@pytest.mark.parametrize(
    ("package", "options"), [("scipy", ["--seeds", "2"]), ("matplotlib", ["--plot", "x.png"])]
)
def test_a_missing_package_shows_before_anything_runs(
    package, options, loaded, source, monkeypatch, capsys
):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["eval", str(source), *options]) == 2
    assert "pip install 'flipfast[plot]'" in capsys.readouterr().err
    assert loaded == ([], [])


def test_the_embedded_model_on_real_preferences(shared_file, tmp_path, capsys):
    source = shared_file("data/preferences_llmbar.jsonl.gz")
    out = tmp_path / "out.json"
    arguments = [*use("flip"), "--limit", "1", "--max-new-tokens", "16", "--json-out", str(out)]
    assert main(["eval", str(source), *arguments]) == 0
    assert "5 items" in capsys.readouterr().out
    (flip,) = json.loads(out.read_text())["raters"]
    assert len(flip["subsets"]) == 5
    assert flip["runs"][0]["cost"]["n_prompt_tokens"] > 0
    assert all(0 <= score <= 1 for pair in flip["runs"][0]["scores"] for score in pair if score)
