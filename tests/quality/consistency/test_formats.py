"""Rewards under several number formats."""

from __future__ import annotations

from contextlib import closing

import pytest
import torch

from flipfast import FlipReward
from flipfast.config import FlipConfig
from flipfast.errors import ModelLoadError
from flipfast.quality.consistency import compare_formats
from flipfast.quality.raters import Group

pytest.importorskip("scipy")

GROUPS = [
    Group("Name a river in Spain.", ("The Ebro is a river in Spain.", "Bread needs flour.")),
    Group("Say nothing.", ()),
]
IN_FLOAT32 = {"Ebro": "k l m n", "Tagus": "k l", "Douro": "x"}
IN_OTHERS = {"Ebro": "k l", "Tagus": "k l m n", "Douro": "x"}


@pytest.fixture
def loaded(scripted, monkeypatch):
    """Formats that models were loaded in."""
    formats = []

    def load(config):
        formats.append(config.dtype or config.weights)
        texts = IN_FLOAT32 if config.dtype == "float32" else IN_OTHERS
        if config.dtype == "bfloat16" and config.model == "broken":
            raise ModelLoadError("no room")
        shown = scripted(
            lambda prompt, _: next(text for word, text in texts.items() if word in prompt)
        )
        return FlipReward(config, inverter=shown.inverter)

    monkeypatch.setattr("flipfast.quality.consistency.formats.FlipReward", load)
    return formats


def test_changes_from_the_first_format(loaded):
    groups = [Group("k l m n", ("Ebro", "Tagus", "Douro"))]
    found = compare_formats(FlipConfig(style="direct", device="cpu"), groups)
    assert loaded == ["float32", "bfloat16", "int8", "int4"]
    one, *others = found.changes
    assert [other.second for other in others] == ["int8", "int4"]
    assert (one.first, one.second, one.bit_equal) == ("float32", "bfloat16", pytest.approx(1 / 3))
    assert one.mean_difference == pytest.approx(2 * (1 - 2 / 3) / 3)
    assert (one.flips.n_flipped, one.flips.n_pairs, one.agreement.same_best) == (1, 3, 0)


def test_a_format_that_cannot_be_loaded_is_left_out(loaded):
    groups = [Group("k l m n", ("Ebro", "Tagus", "Douro"))]
    found = compare_formats(FlipConfig("broken", style="direct", device="cpu"), groups)
    assert [run.name for run in found.runs] == ["float32", "int8", "int4"]
    assert found.left_out == {"bfloat16": "no room"}


def test_float16_where_there_is_a_gpu(loaded, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    found = compare_formats(FlipConfig(style="direct"), [Group("k l m n", ("Ebro",))])
    assert loaded == ["float32", "bfloat16", "float16"]
    assert [(one.first, one.second) for one in found.changes] == [
        ("float32", "bfloat16"),
        ("float32", "float16"),
    ]


@pytest.mark.parametrize("model", ["small", "model.gguf"])
def test_blocks_are_widened_for_floats(model, scripted, monkeypatch, tmp_path):
    path = tmp_path / model
    path.write_bytes(b"GGUF")
    given = []

    def load(config):
        given.append((config.dtype, config.weights))
        return FlipReward(config, inverter=scripted(lambda *_: "k").inverter)

    monkeypatch.setattr("flipfast.quality.consistency.formats.FlipReward", load)
    name = model if model == "small" else str(path)
    compare_formats(FlipConfig(name, style="direct", device="cpu"), [Group("k", ("Ebro",))])
    floats, integers = given[:2], given[2:]
    assert floats == [("float32", "float"), ("bfloat16", "float")]
    assert integers == [(None, "int8"), (None, "int4")]


@pytest.mark.slow
def test_the_embedded_model_runs_in_each():
    found = compare_formats(FlipConfig(device="cpu"), GROUPS)
    assert [run.name for run in found.runs] == ["float32", "bfloat16", "int8", "int4"]
    for run in found.runs:
        kind = "dtype" if "float" in run.name else "weights"
        with closing(FlipReward(device="cpu", **{kind: run.name})) as reward:
            alone = reward.score([GROUPS[0].instruction], [GROUPS[0].responses[1]])
        assert run.rewards[0][1] == alone.rewards[0]
    assert torch.isfinite(torch.tensor([run.mean_reward for run in found.runs])).all()
