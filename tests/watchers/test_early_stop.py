"""An output that ends where its instruction is closed gives the same reward, in fewer tokens."""

from __future__ import annotations

import gzip
import json
import logging
from typing import Any

import pytest

from flipfast import FlipReward, extract_instruction
from flipfast.engine.sampling import SamplingParams
from flipfast.metrics.token_bytes import token_bytes
from flipfast.watchers.early_stop import EarlyStop
from tests.metrics.trained_tokenizers import KINDS, tokenizer
from tests.prompts.conftest import make_tokenizer  # noqa: F401  (a fixture)
from tests.scripted import ScriptedInverter, WatchedInverter, watched

SAMPLING = SamplingParams(max_new_tokens=512)
# Each closes its instruction in front of the bar.
STOPPED = [
    '{"REASONING": "r", "INFERRED INSTRUCTION": "Name a river."}|\n\nI hope this helps!',
    '{"INFERRED INSTRUCTION": "Name a river.", "REASONING":| "It names one, {\\"a\\": 1}."}',
    '```json\n{\n  "INFERRED INSTRUCTION": "Name \\"a\\"\\n\\u00e9 river.\\\\"\n}|\n```',
    '<think>\nr\n</think>\n\n{"inferred_instruction": "Name \\ud83d\\ude00"}| {"instruction": "b"}',
    '{"INFERRED INSTRUCTION": "Nomme un café à 你好"}|</think> <think>',
    '{"INFERRED INSTRUCTION": "a"}| {"INFERRED INSTRUCTION": "Name a river."}',
    '{"INFERRED INSTRUCTION": "Solve \\frac{a}{b}."}| with {"a": 1}',
]
RUNNING_ON = [
    'Sure: {"INFERRED INSTRUCTION": "Name a river."} Bye!',
    '{"INFERRED INSTRUCTION": "Say "hi" to him"} Bye!',
    '{"INFERRED INSTRUCTION": "Convert {"name": "Bob", "age": 3} to YAML."} Bye!',
    '{"INFERRED INSTRUCTION": "Solve \\frac{a}{b} = \\sqrt{2}."} Bye!',
    '{\\"INFERRED INSTRUCTION\\": \\"Name a river.\\"}',
    '{"INFERRED INSTRUCTION": "Name a river." // final\n}',
    '{"推理": "r", "指令": "Name a river."}',
    '{"INFERRED INSTRUCTION": """Name a river."""}',
    '{"INFERRED INSTRUCTION": "..."} {"INFERRED INSTRUCTION": "Name a river."}',
    '{"INFERRED INSTRUCTION": "Name a river.',
]


def stopped(table: Any, tokens: list[int]) -> list[int]:
    """What is left of an output."""
    output, reason = watched(EarlyStop(table), tokens, SAMPLING)
    assert reason == "stop"
    return output


def encode(made: Any, text: str) -> list[int]:
    return list(made.encode(text, add_special_tokens=False))


def decode(made: Any, ids: list[int]) -> str:
    return str(made.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_end_where_the_instruction_is_closed(kind: str) -> None:
    made = tokenizer(kind)
    table = token_bytes(made)
    n_stopped = 0
    for marked in STOPPED:
        whole = encode(made, marked.replace("|", ""))
        output = stopped(table, whole)
        assert output == whole[: len(output)]
        if output != whole:
            n_stopped += 1
            shorter = decode(made, output[:-1]).strip()
            assert marked.split("|")[0].startswith(shorter)
        said = decode(made, whole)
        assert extract_instruction(decode(made, output)) == extract_instruction(said)
    # Of those in SentencePiece's manner some lack a brace, or spell characters byte by byte.
    assert n_stopped == len(STOPPED) or kind in ("llama2", "gemma", "metaspace")


def test_the_end_is_the_closing_token() -> None:
    made = tokenizer("gpt2")
    for marked in STOPPED:
        start, rest = (encode(made, part) for part in marked.split("|"))
        assert stopped(token_bytes(made), start + rest) == start


def test_other_outputs_run_on() -> None:
    made = tokenizer("gpt2")
    for text in RUNNING_ON:
        whole = encode(made, text)
        assert stopped(token_bytes(made), whole) == whole


def test_a_token_of_unknown_bytes_runs_on_and_a_special_one_has_none() -> None:
    made = tokenizer("gpt2")
    whole = encode(made, STOPPED[0].split("|")[0])
    special = made.eos_token_id
    table = [*token_bytes(made), None]
    unknown = len(table) - 1
    assert stopped(table, [special, *whole, 5]) == [special, *whole]
    for output in ([whole[0], unknown, *whole[1:], 5], [unknown, *whole, 5]):
        assert stopped(table, output) == output


@pytest.mark.slow
def test_recorded_outputs_give_the_same_rewards(shared_file: Any) -> None:
    made = tokenizer("embedded")
    table = token_bytes(made)
    n_saved = 0
    path = shared_file("golden/extraction_golden.jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    for row in rows:
        whole = encode(made, row["model_output"])
        output = stopped(table, whole)
        expected = extract_instruction(decode(made, whole))
        assert extract_instruction(decode(made, output)) == expected, row
        n_saved += len(whole) - len(output)
    assert len(rows) == 1500
    assert n_saved > 1000


def scored(made: Any, **options: Any) -> tuple[Any, ScriptedInverter]:
    texts = [text.replace("|", "") for text in STOPPED] + RUNNING_ON
    inverter = WatchedInverter(made, lambda prompt, _: texts[int(prompt.split("#")[1])])
    reward = FlipReward(inverter=inverter, model="scripted", **options)
    responses = [f"#{i}#" for i in range(len(texts))]
    return reward.score(["Name a river."] * len(texts), responses), inverter


@pytest.mark.parametrize("style", ["standalone", "conversation"])
def test_equal_rewards_in_fewer_tokens(make_tokenizer: Any, style: str) -> None:  # noqa: F811
    short, _ = scored(make_tokenizer(), style=style)
    whole, inverter = scored(make_tokenizer(), style=style, early_stop=False)
    assert [request.watcher for request in inverter.requests] == [None] * len(whole)
    for column in ("rewards", "precision", "recall", "status", "inferred"):
        assert getattr(short, column) == getattr(whole, column), column
    fewer = [a < b for a, b in zip(short.n_output_tokens, whole.n_output_tokens, strict=True)]
    assert fewer == [True] * len(STOPPED) + [False] * len(RUNNING_ON)


@pytest.mark.parametrize("options", [{"parser": "reference"}, {"style": "direct"}])
def test_where_the_whole_output_counts(make_tokenizer: Any, options: Any) -> None:  # noqa: F811
    _, inverter = scored(make_tokenizer(), **options)
    assert [request.watcher for request in inverter.requests] == [None] * len(inverter.requests)
    assert "token_bytes" not in vars(inverter)  # nobody has waited for that


def test_a_tokenizer_that_is_not_understood_is_logged_once(
    make_tokenizer: Any,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = make_tokenizer()
    monkeypatch.setattr("flipfast.metrics.token_bytes.token_bytes", lambda *_: [b"x"] * len(made))
    with caplog.at_level(logging.WARNING):
        batch, inverter = scored(made)
        FlipReward(inverter=inverter, model="scripted").score(["x"], ["#0#"])
    assert batch.status.count("ok") == len(STOPPED) - 1  # all but the one with \\frac
    assert {request.watcher for request in inverter.requests} == {None}
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "no output is stopped early and rewards are scored from decoded texts"
    ]
