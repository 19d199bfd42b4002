"""Pairs from public files: both formats, and what is left out."""

from __future__ import annotations

import gzip
import json

from flipfast.training import public_pairs


def write(path, rows, *, lines=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = map(json.dumps, rows) if lines else [json.dumps(rows)]
    path.write_text("\n".join(texts), "utf-8")
    return path


def read(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_alpaca_files(tmp_path, monkeypatch):
    rows = [
        {"instruction": "Translate. ", "input": "Haus", "output": "house"},
        {"instruction": "Name a river.", "input": "", "output": "The Ebro."},
        {"instruction": "Name a river.", "output": "The Ebro."},
        {"instruction": "Name a river.", "output": " "},
        {"instruction": "name a LAKE, please", "output": "Garda"},
    ]
    kept_out = write(tmp_path / "eval.json", [{"instruction": "Name a lake (please)."}])
    out = tmp_path / "out.jsonl.gz"
    files = ["--alpaca", str(write(tmp_path / "a.json", rows)), "--keep-out", str(kept_out)]
    monkeypatch.setattr("sys.argv", ["public_pairs", *files, "--out", str(out)])
    public_pairs.main()
    assert read(out) == [
        {"instruction": "Translate. \nHaus", "response": "house", "source": "public"},
        {"instruction": "Name a river.", "response": "The Ebro.", "source": "public"},
    ]


def test_a_checkout_of_flask(tmp_path, monkeypatch):
    evaluation = [
        {"idx": 1, "instruction": "Add 1 and 1.", "task": "Gsm8k"},
        {"idx": 2, "instruction": "Rewrite this.", "task": "Self-instruct"},
    ]
    write(tmp_path / "evaluation_set/flask_evaluation.jsonl", evaluation, lines=True)
    outputs = tmp_path / "model_output/outputs"
    write(outputs / "a.jsonl", [{"question_id": 1, "text": "2"}], lines=True)
    rows = [{"question_id": 1, "output": "two"}, {"question_id": 2, "output": "This."}]
    write(outputs / "b.jsonl", rows, lines=True)
    out = tmp_path / "out.jsonl.gz"
    monkeypatch.setattr("sys.argv", ["public_pairs", "--flask", str(tmp_path), "--out", str(out)])
    public_pairs.main()
    assert [(row["instruction"], row["response"]) for row in read(out)] == [
        ("Add 1 and 1.", "2"),
        ("Add 1 and 1.", "two"),
    ]


def test_long_responses_are_cut_and_long_beginnings_compared(tmp_path):
    same = "Tell me " + "very " * 20
    pairs = [(same + "much", "a"), ("Tell me", "b" * 5000)]
    assert list(public_pairs.usable(pairs, [same + "little"])) == [("Tell me", "b" * 3000)]
