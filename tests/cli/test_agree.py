"""`flipfast agree` with a scripted model: the table, the files, wrong use."""

import json
import sys

import pytest

from flipfast import FlipReward
from flipfast.cli import main
from flipfast.cli.agree import read_options
from flipfast.errors import ConfigError
from tests.prompts.conftest import make_tokenizer  # noqa: F401  (a fixture)
from tests.scripted import ScriptedInverter

pytest.importorskip("scipy")

GROUPS = [
    {"instruction": "Name one river", "responses": ["Ebro", "Tagus", "nothing"]},
    {"instruction": "Name one town", "responses": ["Tagus", "nothing", "Ebro"]},
]
# What the scripted model takes the instruction to be.
ANSWERS = {"Ebro": "Name one river", "Tagus": "Name something"}


@pytest.fixture
def loaded(make_tokenizer, monkeypatch):  # noqa: F811
    """Inverters that were loaded, and in each the configurations that it served."""
    inverters = []

    def answer(prompt, request):
        return next((text for word, text in ANSWERS.items() if word in prompt), "")

    def build(config, inverter=None):
        if inverter is None:
            inverter = ScriptedInverter(make_tokenizer(), answer)
            inverter.configs = []
            inverters.append(inverter)
        inverter.configs.append(config)
        return FlipReward(config, inverter=inverter)

    monkeypatch.setattr("flipfast.cli.agree.FlipReward", build)
    return inverters


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "groups.jsonl"
    path.write_text("".join(json.dumps(group) + "\n" for group in GROUPS))
    return str(path)


def test_a_table_and_a_file(loaded, source, tmp_path, capsys):
    out = tmp_path / "out.json"
    options = ["--style", "direct", "--variant", "on_failure=0", "--variant", "max_new_tokens=9"]
    assert main(["agree", source, *options, "--json-out", str(out)]) == 0
    first, zero, _ = json.loads(out.read_text())
    assert first["name"] == "defaults"
    assert first["rewards"] == [[1.0, 0.4, None], [0.4, None, pytest.approx(2 / 3)]]
    assert zero["rewards"] == [[1.0, 0.4, 0.0], [0.4, 0.0, pytest.approx(2 / 3)]]
    assert first["mean_reward"] == pytest.approx((1 + 0.4 + 0.4 + 2 / 3) / 4)
    assert zero["mean_reward"] == pytest.approx((1 + 0.4 + 0.4 + 2 / 3) / 6)
    assert first["failed"] == zero["failed"] == pytest.approx(1 / 3)
    assert [zero["kendall"], zero["spearman"]] == [pytest.approx(1)] * 2
    assert (zero["same_best"], zero["chance"]) == (1, pytest.approx(1 / 3))
    assert zero["output_tokens"] > 0 < zero["rewards_per_s"]
    shown = capsys.readouterr().out
    for word in ("33.3 %", "on_failure=0", "Kendall", "1.000", "0.333", "6 responses in 2 groups"):
        assert word in shown
    assert "a failed response ranks lowest" in shown


def test_a_model_is_loaded_once_for_all_that_it_serves(loaded, source):
    variants = ["style=direct", "model=other,parser=reference", "temperature=1,samples=2"]
    arguments = [word for text in variants for word in ("--variant", text)]
    assert main(["agree", source, *arguments, "--seed", "3"]) == 0
    embedded, other = loaded
    assert [config.style for config in embedded.configs] == [None, "direct", None]
    assert [config.samples for config in embedded.configs] == [1, 1, 2]
    assert [config.parser for config in other.configs] == ["reference"]
    assert all(config.seed == 3 for inverter in loaded for config in inverter.configs)


def test_a_variant_has_the_last_word(loaded, source):
    options = ["--style", "direct", "--base", "style=standalone", "--variant", "seed=1"]
    assert main(["agree", source, *options]) == 0
    assert [config.style for config in loaded[0].configs] == ["standalone", "direct"]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_plot(loaded, source, tmp_path, suffix):
    pytest.importorskip("matplotlib")
    out = tmp_path / f"plot.{suffix}"
    variants = ["--variant", "style=direct", "--variant", "on_failure=0"]
    assert main(["agree", source, *variants, "--plot", str(out)]) == 0
    assert (
        out.read_bytes()
        .lstrip(b"<?xml")
        .startswith({"png": b"\x89PNG", "svg": b" version"}[suffix])
    )


def test_options_take_their_own_types():
    text = "style=direct, samples=2,temperature=0.5,thinking=True,memory=none,max-new-tokens=7"
    found = read_options(text)
    assert found == {
        "style": "direct",
        "samples": 2,
        "temperature": 0.5,
        "thinking": True,
        "memory": None,
        "max_new_tokens": 7,
    }
    assert isinstance(found["samples"], int)
    assert read_options("on_failure=0,model=none") == {"on_failure": 0.0, "model": "none"}
    assert read_options("") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("styl=direct", "unknown option 'styl'"),
        ("direct", "'direct' is no option: write name=value"),
        ("samples=two", "samples=two: samples takes int"),
        ("thinking=1", "thinking=1: thinking takes true or false"),
        ("seed=none", "seed=none: seed takes int"),
    ],
)
def test_options_that_are_none(text, message):
    with pytest.raises(ConfigError, match=message):
        read_options(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jsonl", "--variant", "seed=1"], "cannot read nowhere.jsonl"),
        (["--variant", "sed=1"], "unknown option 'sed'"),
        (["--variant", "samples=0"], "samples must be at least 1"),
        (["--variant", "style=verse"], "verse"),
        (
            ["--variant", "seed=1", "--json-out", "no/such/folder/x"],
            "cannot write no/such/folder/x",
        ),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(arguments, message, loaded, capsys):
    assert main(["agree", *arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_an_input_without_responses(loaded, tmp_path, capsys):
    path = tmp_path / "none.jsonl"
    path.write_text('{"instruction": "Name one river", "responses": []}\n')
    assert main(["agree", str(path), "--variant", "seed=1"]) == 2
    assert "holds no responses" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("package", "options"), [("scipy", []), ("matplotlib", ["--plot", "x.png"])]
)
def test_a_missing_package_shows_before_anything_runs(
    package, options, loaded, source, monkeypatch, capsys
):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["agree", source, "--variant", "seed=1", *options]) == 2
    shown = capsys.readouterr().err
    assert f"need{'s' * (package == 'matplotlib')} {package}" in shown
    assert "pip install 'flipfast[plot]'" in shown
    assert loaded == []


def test_a_plot_of_no_type(loaded, source, capsys):
    pytest.importorskip("matplotlib")
    assert main(["agree", source, "--variant", "seed=1", "--plot", "plot.txt"]) == 2
    assert "--plot plot.txt: the suffix must be one of" in capsys.readouterr().err
    assert loaded == []
