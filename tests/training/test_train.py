"""The recipe: what a batch holds, and a run of a few steps from end to end."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from flipfast import FlipfastError, FlipReward
from flipfast.training.average import average
from flipfast.training.batches import Batches
from flipfast.training.data import RealText
from flipfast.training.evaluate import evaluate_real, evaluate_world
from flipfast.training.tokenizer import VOCAB_SIZE, train_tokenizer
from flipfast.training.train import Recipe, train
from flipfast.training.world import World

pytestmark = pytest.mark.slow

WORDS = ["river", "harbor", "lantern", "copper", "violin", "glacier", "orchard", "meadow", "walnut"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng, path = Random(0), tmp_path_factory.mktemp("pairs") / "pairs.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for i in range(200):
            words = " ".join(rng.choices(WORDS, k=30))
            row = {"instruction": f"Write text {i}", "response": f"Text {i}: {words}"}
            file.write(json.dumps(row) + "\n")
    return path


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    rng, world = Random(0), World()
    return train_tokenizer(world.good(rng).response for _ in range(3000))


def test_the_real_split_is_by_instruction(pairs: Path) -> None:
    kept, held_out = RealText(pairs), RealText(pairs, held_out=True)
    instructions = ({i for i, _ in part.pairs} for part in (kept, held_out))
    first, second = instructions
    assert not first & second
    assert len(first | second) == 200
    assert second


def test_a_pseudo_instruction_is_made_of_the_response(pairs: Path) -> None:
    rng, real = Random(1), RealText(pairs)
    for _ in range(100):
        example = real.pseudo(rng, max_words=15)
        assert any(word in example.target for word in WORDS)
        named = [word for word in WORDS if word in example.target]
        assert all(word in example.response for word in named)


def test_the_tokenizer_keeps_every_text(tokenizer: Any) -> None:
    assert len(tokenizer) <= VOCAB_SIZE
    text = "Ünïcode \x00\n\t 12345 \U0001f600 <|end|>"
    ids = tokenizer.encode(text.replace("<|end|>", ""))
    assert tokenizer.decode(ids) == text.replace("<|end|>", "")
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("1234")) == list("1234")


def test_rows_are_packed_and_weighted(tokenizer: Any, pairs: Path) -> None:
    batch = Batches(tokenizer, World(), RealText(pairs), Random(2)).draw(1.0)
    assert (batch.documents >= 0).float().mean() > 0.85
    for ids, weights, positions, documents in zip(
        batch.ids, batch.weights, batch.positions, batch.documents, strict=True
    ):
        for number in documents[documents >= 0].unique():
            inside = documents == number
            assert positions[inside].tolist() == list(range(int(inside.sum())))
            prompt, answer = tokenizer.decode(ids[inside]).split("<|assistant|>\n")
            assert prompt.startswith(("<|user|>", "<|system|>"))
            assert answer.endswith("<|end|>")
            asked = tokenizer.decode(ids[inside & (weights == 1.0)])
            assert asked == answer
        assert not weights[documents < 0].any()


def test_a_run_from_end_to_end(
    tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr("flipfast.training.batches._ROWS", 2)
    monkeypatch.setattr("flipfast.training.train._LOG_EVERY", 1)
    monkeypatch.setattr("flipfast.training.train._WARMUP_STEPS", 1)
    recipe = Recipe(tmp_path / "a", 5, pairs, None, 0, "cpu")
    train(recipe)
    train(Recipe(tmp_path / "b", 1, pairs, recipe.out, 0, "cpu"))
    log = [json.loads(line) for line in (recipe.out / "training_log.jsonl").open()]
    assert [row["step"] for row in log] == [1, 2, 3, 4, 5]
    assert log[-1]["loss"] < log[0]["loss"] - 0.5
    reward = FlipReward(str(tmp_path / "b"), max_new_tokens=8)
    world, real = evaluate_world(reward, 1), evaluate_real(reward, pairs, 4)
    assert 0 <= world["best_of_8"] <= 1
    assert real["pairs"] == 4
    assert 0 <= real["first_15_words"]["auc"] <= 1


def test_no_figures_are_made_of_rows_that_never_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr("flipfast.engine.model_runner.ModelRunner.run", broken)
    with pytest.raises(FlipfastError, match="8 of 8 rows.*out of order"):
        evaluate_world(FlipReward(), 1)


def test_averaging_runs(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 4.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        save_file({"w": torch.full((2,), value)}, tmp_path / name / "model.safetensors")
    average(tmp_path / "mean", [tmp_path / "a", tmp_path / "b"])
    mean = load_file(tmp_path / "mean" / "model.safetensors")["w"]
    assert mean.tolist() == [2.5, 2.5]
    assert mean.dtype == torch.bfloat16
    assert (tmp_path / "mean" / "config.json").exists()
