"""The parser for outputs that are the instruction and no more."""

import pytest

from flipfast import extract_instruction


@pytest.mark.parametrize(
    "output",
    [
        "What is x?",
        "\n What is x?\n",
        '"What is x?"',
        "“What is x?”",
        "Instruction: What is x?",
        '**Inferred instruction:** "What is x?"',
        "The user's prompt was: What is x?",
        "## Instruction\nWhat is x?",
        "```\nWhat is x?\n```",
        "<think>\nInstruction: no\n</think>\nWhat is x?",
        "I looked.</think> What is x?",
        "<answer>What is x?</answer>",
        '{"REASONING": "r", "INFERRED INSTRUCTION": "What is x?"}',
        '```json\n{"instruction": "What is x?"}\n```',
    ],
)
def test_instruction_alone(output):
    assert extract_instruction(output, parser="plain") == ("What is x?", "ok")


@pytest.mark.parametrize(
    ("output", "instruction"),
    [
        ("I looked.</think> What is x?", "I looked. What is x?"),
        ("</think>\nWhat is x?", "What is x?"),
        ("<think>y</think></think>What does </think> do?", "What does  do?"),
        ("What is x? <think>y</think> </think>", "What is x?"),
    ],
)
def test_a_think_block_that_nothing_opened(output, instruction):
    found = extract_instruction(output, parser="plain", think_open=False)
    assert found == (instruction, "ok")


@pytest.mark.parametrize(
    "output",
    [
        '"War" and "Peace"',
        'Turn {"instruction": "x"} into YAML.',
        "Instruction manuals: what makes a good one?",
        "42",
        "'tis the season",
        "one\n\ntwo",
    ],
)
def test_text_that_only_looks_wrapped_stays(output):
    assert extract_instruction(output, parser="plain") == (output, "ok")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("", ("", "empty")),
        ('""', ("", "empty")),
        ("<think>x</think>", ("", "empty")),
        ("<think>it was cut", ("", "unparsed")),
        ('<think>{"INFERRED INSTRUCTION": "x"}', ("x", "ok")),
        ('{"INFERRED INSTRUCTION": "it was cu', ("it was cu", "truncated")),
        ('{"INFERRED INSTRUCTION": "x",}', ("x", "recovered")),
    ],
)
def test_other_outputs(output, expected):
    assert extract_instruction(output, parser="plain") == expected


@pytest.mark.parametrize("unit", ["{", '"', "\\", "<think>", "</think>", "instruction:", "#\n"])
def test_long_hostile_text(unit):
    assert isinstance(extract_instruction(unit * (300_000 // len(unit)), "plain")[0], str)
