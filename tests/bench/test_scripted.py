"""Prescribed outputs: what is written, in how many passes, and what a curve says."""

import json

import pytest

pytest.importorskip("triton")

from bench.draft_curve import break_even, main
from bench.scripted import Script, ScriptedModel, script_of
from bench.sizes import Prescribed
from flipfast.engine.step_costs import Prices, StepCosts
from tests.engine.toy_models import SMALL, save_random_model

N_OUT = 20


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = save_random_model(tmp_path_factory.mktemp("model"), "Qwen3Config", **SMALL)
    loaded = ScriptedModel(folder, device="cpu", memory=2**26, max_seqs=3)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def script(model):
    return script_of(Prescribed(5, 40, 10, N_OUT), model)


def test_without_drafts_every_token_takes_a_pass(model, script):
    run = model.write(script)
    assert (run.passes, run.drafted, run.accepted) == (N_OUT, 0, 0)


@pytest.mark.parametrize(("length", "passes"), [(1, 10), (4, 4), (6, 3), (19, 1), (64, 1)])
def test_right_drafts_save_passes(model, script, length, passes):
    run = model.write(script, acceptance=1.0, length=length)
    assert run.passes == passes  # each brings a token more than its draft
    assert run.accepted == run.drafted == 5 * (N_OUT - passes)


def test_wrong_drafts_save_none(model, script):
    run = model.write(script, acceptance=0.0, length=4)
    assert (run.passes, run.accepted) == (N_OUT, 0)
    assert run.drafted == 5 * (4 * (N_OUT - 4) + 3 + 2 + 1)


def test_in_between(model, script):
    guesses = script.guesses(0.7)
    run = model.write(script, acceptance=0.7, length=3)
    assert run.passes == sum(map(passes_of, script.outputs, guesses)) / 5
    right = sum(sum(map(int.__eq__, *pair)) for pair in zip(script.outputs, guesses, strict=True))
    assert 0.5 < right / (5 * N_OUT) < 0.9


def passes_of(output, guesses, length=3):
    """Passes of a draft of some length behind each token, counted one by one."""
    passes = at = 0
    while at < len(output):
        passes += 1
        for _ in range(length):
            if at >= len(output) - 1 or output[at] != guesses[at]:
                break
            at += 1
        at += 1
    return passes


@pytest.mark.parametrize("acceptance", [0.0, 0.8, 1.0])
def test_the_engine_drafts_by_itself(model, script, acceptance, monkeypatch):
    """Where a row costs next to nothing: what it costs here is a matter of the machine's load."""
    cheap = Prices(step=1.0, sequence=1.0, row=1e-9, drafted=0.0)
    monkeypatch.setattr(StepCosts, "prices", lambda self: cheap)
    run = model.write(script, acceptance=acceptance)
    assert (run.passes < N_OUT) == (acceptance > 0)


def test_an_output_that_is_not_the_script_is_noticed(model, monkeypatch):
    script = Script([[5, 6, 7]], [[1, 2, 3]])
    monkeypatch.setattr(model, "_next", lambda chunk: [9] * (1 + len(chunk.draft)))
    with pytest.raises(AssertionError):
        model.write(script)


@pytest.mark.parametrize(
    ("speeds", "expected"),
    [
        ([0.5, 0.9, 1.1, 2.0], 0.5),
        ([0.8, 1.0, 1.5, 2.0], 0.333),
        ([1.1, 1.2, 1.3, 1.4], 0.0),
        ([0.5, 0.6, 0.7, 0.8], None),
        ([0.9, 1.1, 0.9, 1.1], 0.833),
    ],
)
def test_break_even(speeds, expected):
    points = list(zip([0, 1 / 3, 2 / 3, 1], speeds, strict=True))
    assert break_even(points) == (None if expected is None else pytest.approx(expected, abs=1e-3))


def test_a_table_and_a_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    curve = [{"acceptance": a, "speed": 0.9 + a} for a in (0.0, 0.5, 1.0)]
    rows = [
        {
            "shape": "embedded",
            "series": f"{batch}, {length}",
            "batch": batch,
            "draft_length": length,
        }
        for batch, length in [(1, 4), (1, None), (8, 4)]
    ]
    benchmarks = [{"extra_info": {**row, "curve": curve, "break_even": 0.1}} for row in rows]
    results, plot = tmp_path / "results.json", tmp_path / "curve.svg"
    results.write_text(json.dumps({"benchmarks": [{"extra_info": {}}, *benchmarks]}))
    main([str(results), "--plot", str(plot)])
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 5
    assert shown[3] == "| embedded | 1 | adaptive | 0.90 | 1.40 | 1.90 | 0.10 |"
    assert "<svg" in plot.read_text()


def test_results_without_curves(tmp_path, capsys):
    results = tmp_path / "results.json"
    results.write_text('{"benchmarks": []}')
    with pytest.raises(SystemExit):
        main([str(results)])
    assert "no curves in" in capsys.readouterr().err
