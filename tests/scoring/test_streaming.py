"""Rows that come one by one get the bits that a batch gives them, whatever happens around them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from flipfast import FlipConfig, FlipReward, InputError
from flipfast.engine.sampling import SamplingParams
from flipfast.scoring.streaming import RewardLoop

pytestmark = pytest.mark.slow

INSTRUCTIONS = [
    "How do I make banana bread?",
    "What is erosion?",
    "Name three rivers of France.",
    "Write a haiku about autumn.",
]
RESPONSES = [
    "Mash three ripe bananas, mix them with flour and eggs, and bake for an hour.",
    "Erosion is the wearing away of soil and rock by wind and water.",
    "The Seine, the Loire and the Rhone are rivers of France.",
    "Red leaves drift slowly,\nthe pond holds a paler sky,\ngeese call and are gone.",
]
ROWS = [(x, y + " " * k, None) for k in range(2) for x in INSTRUCTIONS for y in RESPONSES]


@pytest.fixture(scope="module")
def plain() -> Any:
    with FlipReward() as reward:
        yield reward


def drain(loop: RewardLoop) -> None:
    for _ in range(5000):
        if not loop.n_open:
            return
        loop.step()
    raise AssertionError(f"{loop.n_open} rows never ended")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"style": "standalone", "json": "forced", "max_new_tokens": 48},
        {"temperature": 0.8, "samples": 3, "seed": 5, "cache_rewards": 100},
        {"scoring": "likelihood", "likelihood_baseline": True},
        {"backend": "transformers", "max_new_tokens": 24, "batch_size": 5},
    ],
    ids=lambda options: "-".join(map(str, options.values())) or "plain",
)
def test_scores_are_those_of_a_batch(options: dict[str, Any]) -> None:
    rows = ROWS[:12] + ROWS[:3]
    with FlipReward(**options) as reward:
        expected = reward.score(*map(list, zip(*rows, strict=True))).to_dicts()
    loop = RewardLoop(FlipConfig(**options))
    found: dict[int, Any] = {}
    rng = random.Random(1)
    for at in rng.sample(range(len(rows)), len(rows)):
        loop.add(*rows[at], lambda row, at=at: found.update({at: row}))
        if rng.random() < 0.5:
            loop.step()
    drain(loop)
    assert [found[at] for at in range(len(rows))] == expected
    loop.inverter.close()


def test_chats_are_read_as_trl_has_them(plain: FlipReward) -> None:
    prompt = [{"role": "user", "content": INSTRUCTIONS[0]}]
    completion = [{"role": "assistant", "content": f"<think>x</think>{RESPONSES[0]}"}]
    loop = RewardLoop(plain.config, plain.inverter)
    found: list[Any] = []
    loop.add_chat(prompt, completion, found.append)
    loop.add_chat([{"role": "system", "content": "no user"}], completion, found.append)
    drain(loop)
    rewards = {row["reward"] for row in found}
    assert rewards == {plain([prompt], [completion])[0], None}
    [bad] = [row for row in found if row["error"]]
    assert "no user turn" in bad["error"]


def test_bad_rows_are_their_own_error(plain: FlipReward) -> None:
    loop = RewardLoop(plain.config, plain.inverter)
    found: dict[str, Any] = {}
    loop.add(INSTRUCTIONS[0], RESPONSES[0], None, lambda row: found.update(good=row))
    loop.add(INSTRUCTIONS[0], 7, None, lambda row: found.update(type=row))  # type: ignore[arg-type]
    drain(loop)
    assert found["good"] == plain.score([INSTRUCTIONS[0]], [RESPONSES[0]]).to_dicts()[0]
    assert "must be a string, got 7" in found["type"]["error"]
    assert found["type"]["reward"] is None


def test_what_is_cancelled_leaves_nothing_behind(plain: FlipReward) -> None:
    engine = plain.inverter._model.engine  # type: ignore[attr-defined]
    loop = RewardLoop(FlipConfig(temperature=0.9, samples=2), plain.inverter)
    expected: dict[int, Any] = {}
    for at, row in enumerate(ROWS):
        loop.add(*row, lambda scores, at=at: expected.update({at: scores}))
    drain(loop)
    found: dict[int, Any] = {}
    rng = random.Random(2)
    tickets = {}
    for at, row in enumerate(ROWS):
        tickets[at] = loop.add(*row, lambda scores, at=at: found.update({at: scores}))
        if at % 5 == 0:
            loop.step()
    dropped = rng.sample(sorted(tickets), 20)
    for at in dropped:
        loop.cancel(tickets[at])
        if rng.random() < 0.3:
            loop.step()
    early = set(found) & set(dropped)  # those that had ended before
    drain(loop)
    assert set(found) == (set(tickets) - set(dropped)) | early
    assert all(found[at] == expected[at] for at in found)
    last = [loop.add(*row, found.clear) for row in ROWS]  # type: ignore[arg-type]
    loop.step()
    for ticket in last:
        loop.cancel(ticket)
    assert (loop.n_open, engine._scheduler.idle) == (0, True)
    plain.inverter.forget_prefixes()  # type: ignore[attr-defined]
    assert engine._scheduler.cache.pool.n_held == 0


def test_a_conversation_is_answered(plain: FlipReward) -> None:
    loop = RewardLoop(plain.config, plain.inverter)
    messages = [{"role": "user", "content": "hello"}]
    found: list[Any] = []
    loop.complete(messages, SamplingParams(max_new_tokens=6), 0, lambda *a: found.append(a))
    drain(loop)
    [(inversion, n_prompt)] = found
    ids = plain.inverter.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )
    assert n_prompt == len(ids)
    assert inversion.text == plain.inverter.decode(inversion.output_ids) != ""
    with pytest.raises(InputError, match="do not fit"):
        loop.complete(messages, SamplingParams(max_new_tokens=10**6), 0, lambda *a: None)
    assert loop.n_open == 0


def test_a_model_that_sleeps_says_so_and_takes_no_row(plain: FlipReward) -> None:
    from flipfast import FlipfastError

    loop = RewardLoop(plain.config, plain.inverter)
    plain.inverter.sleep()  # type: ignore[attr-defined]
    with pytest.raises(FlipfastError, match="asleep"):
        loop.add(*ROWS[0], lambda row: None)
    assert loop.n_open == 0
    plain.inverter.wake()  # type: ignore[attr-defined]
