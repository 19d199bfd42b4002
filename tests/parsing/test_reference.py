"""The reference parser against the published rewards, and its quirks one by one."""

import gzip
import json
import re
import string
from collections import Counter

import pytest

from flipfast import extract_instruction


def published_f1(prediction: str, reference: str) -> float:
    words = []
    for text in (prediction, reference):
        text = "".join(char for char in text.lower() if char not in string.punctuation)
        words.append(re.sub(r"\b(a|an|the)\b", " ", text).split())
    same = sum((Counter(words[0]) & Counter(words[1])).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(words[0]), same / len(words[1])
    return (2 * precision * recall) / (precision + recall)


def test_every_published_reward_is_met_bit_for_bit(shared_file):
    with gzip.open(
        shared_file("golden/extraction_golden.jsonl.gz"), "rt", encoding="utf-8"
    ) as file:
        rows = [json.loads(line) for line in file]
    assert len(rows) == 1500
    for row in rows:
        text, status = extract_instruction(row["model_output"], parser="reference")
        assert published_f1(text, row["instruction"]) == row["reference_reward"], row
        assert (status == "unparsed") == (row["reference_exception"] is not None), row


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ('{"INFERRED INSTRUCTION": "x y"}', ("x y", "ok")),
        ('{"Inferred Instructcion": "x y"}', ("x y", "ok")),
        ('```json{"INFERRED INSTRUCTION": "x y"}```', ("x y", "ok")),
        ('<think>a</think> \n<answer>{"inferred_instruction": "x"}</answer>', ("x", "ok")),
        # Falsy values fall through to the next key, and to the whole text after the last ...
        ('{"INFERRED INSTRUCTION": "", "inferred instruction": "x"}', ("x", "ok")),
        ('{"INFERRED INSTRUCTION": 0, "inferred_instruction": "x"}', ("x", "ok")),
        ('{"INFERRED INSTRUCTION": ""}', ('{"INFERRED INSTRUCTION": ""}', "prose")),
        # ... unless the last key itself holds one that is not null.
        ('{"Inferred_Instruction": ""}', ("", "empty")),
        ('{"Inferred_Instruction": null}', ('{"Inferred_Instruction": null}', "prose")),
        ('{"Inferred_Instruction": 0}', ("", "unparsed")),
        ('{"INFERRED INSTRUCTION": "a", "INFERRED INSTRUCTION": "b"}', ("b", "ok")),
        ('{"INFERRED INSTRUCTION": ["x"]}', ("", "unparsed")),
        ('{"INFERRED INSTRUCTION": NaN}', ("", "unparsed")),
        ('[{"INFERRED INSTRUCTION": "x"}]', ("", "unparsed")),
        ("Infinity", ("", "unparsed")),
        ("null", ("", "unparsed")),
        ("9" * 5000, ("", "unparsed")),
        ("[" * 200_000, ("", "unparsed")),
        ("[[", ("[[", "prose")),
        # Line breaks become two characters each, so that JSON over several lines is no JSON.
        ('{\n"INFERRED INSTRUCTION": "x"}', ('{\\n"INFERRED INSTRUCTION": "x"}', "prose")),
        ('{"INFERRED INSTRUCTION": "x\r\ny"}', ("x\ny", "ok")),
        ('{"INFERRED INSTRUCTION": "x\ry"}', ('{"INFERRED INSTRUCTION": "x\ry"}', "prose")),
        ('{"INFERRED INSTRUCTION": "x \\_ y"}', ("x \\_ y", "ok")),
        # The second of two backslashes counts as a lone one: three are no JSON.
        ('{"a": "\\\\_"}', ('{"a": "\\\\\\_"}', "prose")),
        ('{"INFERRED INSTRUCTION": "\\ud800"}', ("\ud800", "ok")),
        ("\ud800 \x00", ("\ud800 \x00", "prose")),
        ("assistant<|assistant|> <|text|>x<think></think>y", ("<||> xy", "prose")),
        ("<thinkassistant>x", ("x", "prose")),
        ("", ("", "empty")),
        ("```json```", ("", "empty")),
    ],
)
def test_quirk(output, expected):
    assert extract_instruction(output, parser="reference") == expected


@pytest.mark.parametrize("unit", ["{", '"', "\\", "<think>", "<think></think>", "[", "\n"])
def test_long_hostile_text(unit):
    text, status = extract_instruction(unit * (300_000 // len(unit)), parser="reference")
    assert isinstance(text, str)
    assert status in ("prose", "empty", "unparsed")
