"""`flipfast consistency`: the tables, the files, wrong use."""

import json
import sys
from contextlib import redirect_stdout
from io import StringIO

import pytest

from flipfast.cli import main

pytestmark = pytest.mark.slow

pytest.importorskip("scipy")

GROUPS = [
    {
        "instruction": "Name a river in Spain.",
        "responses": ["The Ebro is a river in Spain.", "Bread needs flour.", "Rivers are long."],
    },
    {"instruction": "Say nothing.", "responses": []},
    {
        "instruction": "How do I make banana bread?",
        "responses": ["To make banana bread, mash three bananas.", "Frogs are amphibians."],
    },
]


def write(path, groups):
    path.write_text("".join(json.dumps(group) + "\n" for group in groups))
    return str(path)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Exit code, output and files of one run with the embedded model on the first groups."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("consistency")
    source = write(folder / "groups.jsonl", [*GROUPS, {"instruction": "Hi", "response": "Hello"}])
    out, plot = folder / "out.json", folder / "plot.png"
    options = ["--limit", "3", "--seeds", "2", "--max-new-tokens", "48", "--device", "cpu"]
    with redirect_stdout(StringIO()) as shown:
        code = main(["consistency", source, *options, "--json-out", str(out), "--plot", str(plot)])
    return code, shown.getvalue(), out, plot


def test_the_file_has_all_figures_and_rewards(ran):
    code, _, out, _ = ran
    assert code == 0
    found = json.loads(out.read_text())
    matrix = found["matrix"]
    assert [len(row) for row in matrix["values"]] == [2, 2]
    assert (matrix["chance"], matrix["n_left_out"], matrix["n_failed"]) == (0.5, 1, 0)
    assert matrix["own"] > matrix["others"]
    names = [run["name"] for run in found["wordings"]["runs"]]
    assert names == ["standalone", "conversation", "direct"]
    assert [len(group) for group in found["wordings"]["runs"][0]["rewards"]] == [3, 0, 2]
    assert [one["second"] for one in found["formats"]["changes"]] == ["bfloat16", "int8", "int4"]
    direct = found["wordings"]["runs"][2]["rewards"]
    formats = [run["rewards"] for run in found["formats"]["runs"]]
    assert direct in formats  # the embedded model's own style, in the fastest format
    assert [run["name"] for run in found["seeds"]["runs"]] == ["seed=0", "seed=1"]
    assert found["seeds"]["temperature"] == 1


def test_the_plot(ran):
    assert ran[3].read_bytes().startswith(b"\x89PNG")


def test_the_tables(ran):
    shown = ran[1]
    for words in ("own instruction", "Spearman", "signal to noise", "rank flips", "2 seeds"):
        assert words in shown
    assert "5 responses in 3 groups, 1 of them without responses; model embedded." in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_the_likelihood_reward_has_no_matrix_and_no_seeds(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    source, out = write(tmp_path / "groups.jsonl", GROUPS), tmp_path / "out.json"
    options = ["--scoring", "likelihood", "--device", "cpu", "--plot", str(tmp_path / "plot.svg")]
    assert main(["consistency", source, *options, "--json-out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert "likelihood" in found["matrix"]["left_out"]
    assert "likelihood" in found["seeds"]["left_out"]
    assert found["wordings"]["changes"]
    assert "scoring='likelihood' writes no instructions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jsonl"], "cannot read nowhere.jsonl"),
        (["--seeds", "1"], "--seeds must be at least 2, not 1"),
        (["--limit", "0"], "--limit must be at least 1, not 0"),
        (["--style", "direct", "--samples", "2"], "samples=2"),
        (["--json-out", "no/such/folder/x"], "cannot write no/such/folder/x"),
        (["--plot", "plot.txt"], "--plot plot.txt: the suffix must be one of"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(arguments, message, capsys):
    if "--plot" in arguments:
        pytest.importorskip("matplotlib")
    assert main(["consistency", *arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_an_input_without_responses(tmp_path, capsys):
    source = write(tmp_path / "none.jsonl", GROUPS[1:2])
    assert main(["consistency", source]) == 2
    assert "holds no responses" in capsys.readouterr().err


def test_a_missing_package_shows_before_anything_runs(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.partition(".")[0] == "scipy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert main(["consistency"]) == 2
    assert "pip install 'flipfast[plot]'" in capsys.readouterr().err
