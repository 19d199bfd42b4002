"""Responses without content: how words are counted, and that nothing is run for them."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from flipfast import ConfigError, FlipConfig, FlipReward
from flipfast.metrics.content import n_content_words, visible
from flipfast.scoring.streaming import RewardLoop
from flipfast.trainers._scorers import figures
from tests.prompts.conftest import make_tokenizer  # noqa: F401  (a fixture)
from tests.scripted import ScriptedInverter

INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}")


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("", 0),
        ("?! … — ,", 0),
        ("\u200b \u2060\ufeff \u3164", 0),
        ("\U0001f600 +", 0),
        ("A", 1),
        ("The answer: (b).", 3),
        ("so\u00adil de\u200bgradation", 2),
        ("\u200bsoil\u200b \u200b", 1),
        ("3.14 Ⅷ don't", 3),
        ("河流。", 2),
        ("東京 is big", 4),
        ("안녕 세상", 2),
    ],
)
def test_words_with_content(text: str, n: int) -> None:
    assert n_content_words(text) == n


def test_invisible_characters_are_those_of_unicode() -> None:
    for first in range(0, sys.maxunicode + 1, 4096):
        text = "".join(map(chr, range(first, first + 4096)))
        assert visible(text) == INVISIBLE.sub("", text), hex(first)


PIECES = st.tuples(st.text(max_size=3), st.sampled_from("\u200b\u00ad\u2060\ufe0f\u3164"))


@given(st.lists(PIECES, max_size=9))
def test_invisible_characters_make_and_part_no_words(pieces: list[tuple[str, str]]) -> None:
    plain = "".join(text for text, _ in pieces)
    assert n_content_words("".join(map("".join, pieces))) == n_content_words(plain)


@pytest.fixture
def inverter(make_tokenizer: Any) -> ScriptedInverter:  # noqa: F811
    return ScriptedInverter(make_tokenizer(), lambda prompt, request: "Name a river")


RESPONSES = ["The river Ebro.", "Ebro.", "!!!", ""]


@pytest.mark.parametrize("options", [{}, {"on_failure": 0.0}, {"temperature": 1.0, "samples": 2}])
@pytest.mark.parametrize("least", [0, 1, 3, 4])
def test_nothing_is_run_for_too_few_words(
    inverter: ScriptedInverter, options: dict[str, Any], least: int
) -> None:
    reward = FlipReward(
        inverter=inverter, style="direct", min_response_words=least, cache_rewards=9, **options
    )
    batch = reward.score(["Name a river"] * 4, RESPONSES)
    left = {0: 4, 1: 2, 3: 1, 4: 0}[least]
    n_failed = 4 - left
    assert batch.status == ["ok"] * left + ["contentless"] * n_failed
    assert batch.rewards == [1.0] * left + [options.get("on_failure")] * n_failed
    assert batch.errors == [None] * 4
    assert batch.recall == [1.0] * left + [None] * n_failed
    assert batch.n_prompt_tokens[left:] == batch.n_output_tokens[left:] == [0] * n_failed
    assert (batch.stats.n_failed, len(inverter.requests)) == (
        n_failed,
        left * options.get("samples", 1),
    )
    assert [figures(row)["flip_failed"] for row in batch.to_dicts()][left:] == [1.0] * n_failed


def test_best_of_and_chats(inverter: ScriptedInverter) -> None:
    reward = FlipReward(inverter=inverter, style="direct", min_response_words=1)
    best = reward.score_best_of("Name a river", ["...", "Ebro", "\u200b"])
    assert (best.best, best.status) == (1, ["contentless", "ok", "contentless"])
    assert reward(["Name a river"] * 2, ["<think>a long one</think> .", "Ebro"]) == [None, 1.0]


CALL = {"role": "assistant", "content": None, "tool_calls": [{"name": "Ebro", "arguments": "{}"}]}
LACKS = [
    (None, "completion: there is no text in None"),
    ({"from": "gpt", "value": None}, "completion: it has no text: value is None"),
    ([CALL], "completion: it has only tool calls"),
    ([CALL, {"role": "tool", "content": "x"}], "completion: it ends in a turn of the role 'tool'"),
    ({"role": "assistant", "content": "", "reasoning": "x"}, "completion: its content is empty"),
]


@pytest.mark.parametrize("on_failure", [None, 0.25])
def test_a_completion_without_a_text(inverter: ScriptedInverter, on_failure: float | None) -> None:
    """One status and one reason, in a batch and row by row."""
    reward = FlipReward(inverter=inverter, style="direct", on_failure=on_failure)
    completions = [completion for completion, _ in LACKS] + [{"from": "gpt", "value": "Ebro"}]
    n = len(LACKS)
    batch = reward.score_chats(["Name a river"] * (n + 1), completions)
    assert batch.status == ["contentless"] * n + ["ok"]
    assert batch.rewards == [on_failure] * n + [1.0]
    for error, (_, reason) in zip(batch.errors[:n], LACKS, strict=True):
        assert error is not None
        assert error.startswith(reason)
    assert (batch.errors[n], batch.stats.n_failed, len(inverter.requests)) == (None, n, 1)
    loop = RewardLoop(reward.config, inverter)
    found: list[Any] = []
    for completion in completions:
        loop.add_chat("Name a river", completion, found.append)
        while loop.n_open:
            loop.step()
    assert found == batch.to_dicts()
    by_text = reward.score(["Name a river"] * 2, [None, "Ebro"])  # type: ignore[list-item]
    assert by_text.status == ["contentless", "ok"]
    assert by_text.errors == ["the response is None", None]
    best = reward.score_best_of("Name a river", [None, "Ebro"])  # type: ignore[list-item]
    assert (best.best, best.status) == (1, ["contentless", "ok"])


def test_tool_calls_as_text(inverter: ScriptedInverter) -> None:
    reward = FlipReward(inverter=inverter, style="direct", tool_calls=True)
    assert reward(["Name a river"], [[CALL]]) == [1.0]
    assert "Ebro({})" in inverter.decode(inverter.requests[0].prompt_ids)


@pytest.mark.parametrize("scoring", ["generate", "likelihood"])
def test_on_the_embedded_model(scoring: str) -> None:
    rows = [("Name a river", text, None) for text in RESPONSES]
    with FlipReward(scoring=scoring, device="cpu") as plain:
        shared = {"inverter": plain.inverter, "scoring": scoring, "device": "cpu"}
        reward = FlipReward(min_response_words=2, **shared)
        batch = reward.score(*map(list, zip(*rows, strict=True)))
        assert batch.status == ["ok", *["contentless"] * 3]
        assert batch.rewards[:1] == plain.score(["Name a river"], RESPONSES[:1]).rewards
        assert batch.rewards[1:] == [None] * 3
        loop = RewardLoop(reward.config, plain.inverter)
        found: list[Any] = []
        for row in reversed(rows):
            loop.add(*row, found.append)
        while loop.n_open:
            loop.step()
        assert sorted(found, key=str) == sorted(batch.to_dicts(), key=str)


def test_wrong_use() -> None:
    with pytest.raises(ConfigError, match="min_response_words must be 0 or more, not -1"):
        FlipConfig(min_response_words=-1)
