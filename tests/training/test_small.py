"""The recipe of "small", on a tiny model: it learns, goes on where it was, and keeps its split."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel

from flipfast.backends import load_inverter
from flipfast.engine.models.gguf.reader import open_gguf
from flipfast.engine.models.gguf.tokenizer import read_gguf_tokenizer
from flipfast.training import small
from flipfast.training.evaluate import evaluate_alpaca
from tests.engine.models.gguf_files import write_gguf
from tests.engine.models.paged import SHAPE, random_model

pytest.importorskip("peft", reason="peft is not installed")

WORDS = ["river", "harbor", "lantern", "copper", "violin", "glacier", "orchard", "meadow"]
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}<assistant>"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng, path = Random(0), tmp_path_factory.mktemp("pairs") / "pairs.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for source in small._SOURCES:
            for i in range(40):
                for _ in range(3):
                    words = " ".join(rng.choices(WORDS, k=6))
                    row = {"instruction": f"Do {source} {i}", "response": f"{words} {i}"}
                    file.write(json.dumps({**row, "source": source}) + "\n")
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokens = [*sorted(ByteLevel.alphabet()), "th", "<end>"]
    tokens += [f"unused{i}" for i in range(SHAPE["vocab_size"] - len(tokens))]
    shape = {**SHAPE, "head_dim": 16, "tie_word_embeddings": True, "initializer_range": 0.05}
    path = tmp_path_factory.mktemp("base") / "base.gguf"
    write_gguf(
        path,
        random_model(transformers.LlamaConfig(**shape)),
        **{
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "smollm",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [3 if token == "<end>" else 1 for token in tokens],
            "tokenizer.ggml.merges": ["t h"],
            "tokenizer.ggml.eos_token_id": tokens.index("<end>"),
            "tokenizer.ggml.padding_token_id": tokens.index("<end>"),
            "tokenizer.chat_template": TEMPLATE,
        },
    )
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: None)
    for name, value in {"_TOKENS": 1024, "_POOL": 16, "_WARMUP_STEPS": 1, "_LOG_EVERY": 1}.items():
        monkeypatch.setattr(small, name, value)


def test_what_a_batch_holds(base: Path, pairs: Path, quick: None) -> None:
    tokenizer = read_gguf_tokenizer(open_gguf(base))
    examples = small.Examples(tokenizer, pairs, Random(0))
    seen = set()
    for _ in range(20):
        ids, targets = examples.draw()
        assert ids.shape == targets.shape
        assert ids.shape[1] in small._WIDTHS
        for row, wanted in zip(ids, targets, strict=True):
            counted = wanted != -100
            if not counted.any():
                continue
            text = tokenizer.decode(wanted[counted])
            assert text.endswith("<end>")
            seen.add(text.removesuffix("<end>"))
            first = int(counted.nonzero()[0])
            assert tokenizer.decode(row[: first + 1]).endswith("<assistant>")
            assert torch.equal(wanted[counted], row[first + 1 :][: counted.sum()])
    assert seen
    assert not any(map(small.is_held_out, seen))


@pytest.mark.slow
def test_a_run_learns_and_goes_on_where_it_was(
    base: Path, pairs: Path, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = small.Recipe(base, tmp_path / "whole", pairs, 6, 0)
    small.train(whole)
    log = [json.loads(line) for line in (whole.out / "training_log.jsonl").open()]
    assert [row["step"] for row in log] == [1, 2, 3, 4, 5, 6]
    assert log[-1]["loss"] < log[0]["loss"] - 0.1

    parts, take = tmp_path / "parts", small.Trainer._take_step

    def interrupted(self: Any, *batch: Any) -> float:
        if self._step == 3 and not (parts / "state.pt").exists():
            self.save()
            raise KeyboardInterrupt
        return take(self, *batch)

    monkeypatch.setattr(small.Trainer, "_take_step", interrupted)
    recipe = small.Recipe(base, parts, pairs, 6, 0)
    with pytest.raises(KeyboardInterrupt):
        small.train(recipe)
    small.train(recipe)
    steps = [json.loads(line)["step"] for line in (parts / "training_log.jsonl").open()]
    assert steps == [1, 2, 3, 4, 5, 6]
    inverter = load_inverter("native", str(base), adapter=str(parts))
    inverter.close()


def test_the_evaluation_is_on_what_was_kept_back(pairs: Path) -> None:
    class Reward:
        def score(self, instructions: list[str], responses: list[str]) -> Any:
            assert all(map(small.is_held_out, instructions))
            assert all("alpaca_eval" in instruction for instruction in instructions)

            class Batch:
                inferred = instructions
                errors = [None] * len(instructions)

            return Batch()

    found = evaluate_alpaca(Reward(), pairs)  # type: ignore[arg-type]
    assert found["pairs"] > 0
    assert found["reward"]["matched_f1"] == 1.0
    assert found["first_15_words"]["matched_f1"] < 0.5
