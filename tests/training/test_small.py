"""The recipe of "small", on a tiny model: it learns, goes on where it was, and keeps its split."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel

from flipfast.backends import load_inverter
from flipfast.engine.models.gguf.reader import open_gguf
from flipfast.engine.models.gguf.tokenizer import read_gguf_tokenizer
from flipfast.engine.sampling import SamplingParams
from flipfast.training import own_pairs, small
from flipfast.training.evaluate import evaluate_groups
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
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("groups") / "groups.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for i in range(10):
            responses = [f"On {WORDS[i % 8]} {i}", "On the rest"]
            row = {"instruction": f"Do alpaca_eval {i}", "responses": responses}
            file.write(json.dumps(row) + "\n")
        file.write(json.dumps({"prompt": "Do gsm8k 3", "responses": ["Not this"]}) + "\n")
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


def recipe(base: Path, out: Path, pairs: Path, held_out: Path) -> small.Recipe:
    return small.Recipe(base, out, (pairs,), (held_out,), steps=6, seed=0)


def test_what_a_batch_holds(base: Path, pairs: Path, held_out: Path, quick: None) -> None:
    tokenizer = read_gguf_tokenizer(open_gguf(base))
    examples = small.Examples(tokenizer, recipe(base, base, pairs, held_out), Random(0))
    seen = set()
    for _ in range(40):
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
    kept_out = {"Do gsm8k 3", *(f"Do alpaca_eval {i}" for i in range(10))}
    assert not seen & kept_out
    assert len(seen & {f"Do alpaca_eval {i}" for i in range(10, 40)}) > 20


@pytest.mark.slow
def test_a_run_learns_and_goes_on_where_it_was(
    base: Path,
    pairs: Path,
    held_out: Path,
    tmp_path: Path,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = recipe(base, tmp_path / "whole", pairs, held_out)
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
    in_parts = recipe(base, parts, pairs, held_out)
    with pytest.raises(KeyboardInterrupt):
        small.train(in_parts)
    small.train(in_parts)
    steps = [json.loads(line)["step"] for line in (parts / "training_log.jsonl").open()]
    assert steps == [1, 2, 3, 4, 5, 6]
    inverter = load_inverter("native", str(base), adapter=str(parts))
    inverter.close()


def test_the_first_sentence_of_a_response() -> None:
    def first(text: str) -> str | None:
        found = small._SENTENCE.match(text)
        return found and found.group()

    assert first("The Ebro flows to the sea. It is long.") == "The Ebro flows to the sea."
    assert first("Hi. There is no bread today!\nNo.") == "Hi. There is no bread today!"
    assert first("It costs 3.50 a loaf. Really") == "It costs 3.50 a loaf."
    assert first("no end") is None


def test_pairs_that_the_base_writes(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    author = own_pairs.Author(base, seed=1)
    asked: list[list[str]] = []
    written = [
        ("Name a river.", True),
        ("one two", True),
        ("cut off", False),
        ("no text here", True),
    ]

    def run(prompts: list[str], sampling: Any) -> list[tuple[str, bool]]:
        asked.append(prompts)
        if sampling is own_pairs._INSTRUCTION:
            return written
        return [("" if "no text" in text else "A text.", False) for text in prompts]

    with monkeypatch.context() as patched:
        patched.setattr(author, "_run", run)
        pairs = list(author.write(2))
    assert pairs == [{"instruction": "Name a river.", "response": "A text.", "source": "own"}] * 2
    assert asked[0] == ["<user>"] * own_pairs._BATCH
    assert asked[1] == [f"<user>{text}\n<assistant>" for text in ("Name a river.", "no text here")]
    # And with the model: its samples depend on the seed alone.
    short = SamplingParams(max_new_tokens=4, temperature=1.0)
    first = author._run(["<user>a", "<user>b"], short)
    assert own_pairs.Author(base, seed=1)._run(["<user>a", "<user>b"], short) == first
    assert author._run(["<user>a", "<user>b"], short) != first


def batch(inferred: list[str]) -> Any:
    n = len(inferred)
    return SimpleNamespace(inferred=inferred, errors=[None] * n, status=["ok"] * n)


def test_the_evaluation_compares_with_all_instructions(tmp_path: Path) -> None:
    path = tmp_path / "groups.jsonl.gz"
    rows = [
        {"instruction": f"about {word}", "responses": [f"{word} {' '.join('bcdefghi')}"] * 2}
        for word in WORDS
    ]
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)

    class Reward:
        def __init__(self, right: int) -> None:
            self.right = right

        def score(self, instructions: list[str], responses: list[str]) -> Any:
            inferred = [
                text if i < self.right else "about nothing" for i, text in enumerate(instructions)
            ]
            return batch(inferred)

    found = evaluate_groups(Reward(16), path)  # type: ignore[arg-type]
    assert (found["responses"], found["statuses"]) == (16, {"ok": 16})
    assert found["reward"] == {"matched_f1": 1, "shuffled_f1": 0.5, "auc": 1, "best_of_8": 1}
    opening = found["first_15_words"]  # one of nine words, and one of the instruction's two
    assert opening["matched_f1"] == pytest.approx(2 / 11)
    assert (opening["shuffled_f1"], opening["auc"], opening["best_of_8"]) == (0, 1, 1)
    # Where half of it says the same for all: no better than chance there.
    half = evaluate_groups(Reward(8), path)["reward"]  # type: ignore[arg-type]
    assert half["matched_f1"] == 0.75
    assert half["auc"] == 0.75
    assert half["best_of_8"] == 0.5 + 1 / 16


def test_the_win_rate_of_what_the_reward_picks(tmp_path: Path) -> None:
    path = tmp_path / "groups.jsonl.gz"
    rows = [
        {
            "instruction": f"about {word}",
            "responses": [f"{word} about", f"{word} b", "c", "d"],
            "models": ["good", "fair", "bad", "unknown"],
        }
        for word in WORDS
    ]
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)

    class Echo:
        def score(self, instructions: list[str], responses: list[str]) -> Any:
            inferred = ["about" if "c" in text else text.split()[-1] for text in responses]
            return batch(inferred)

    rates = {"good": 60.0, "fair": 30.0, "bad": 0.0}
    found = evaluate_groups(Echo(), path, rates)  # type: ignore[arg-type]
    assert found["first_15_words"]["win_rate"] == 60.0
    assert found["reward"]["win_rate"] == 30.0  # "good" and "bad" tie
    assert found["any_response"]["win_rate"] == 30.0
