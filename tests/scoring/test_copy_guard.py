"""The reward where responses copy their instruction: what is reported, masked and taken off."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from flipfast import ConfigError, FlipConfig, FlipReward, ScoreBatch
from flipfast.scoring.copying import copied_share, mask_copies
from flipfast.scoring.samples import Row, Sample, score_rows
from flipfast.scoring.streaming import RewardLoop

INSTRUCTION = "Name two long rivers, please."
RESPONSES = [
    "The Ebro and the Tagus.",
    "Name two long rivers, please.",
    "You ask me to name two long rivers: the Ebro and the Duero.",
    "Bananas.",
]
SHARES = [0.0, 1.0, 4 / 5, 0.0]
ROWS = [(INSTRUCTION, response, context) for context in (None, "Hi.") for response in RESPONSES]


@pytest.fixture(scope="module")
def make() -> Any:
    """A function from options to a reward, all on one model."""
    with FlipReward(device="cpu") as first:
        yield lambda **options: FlipReward(inverter=first.inverter, device="cpu", **options)


def score(reward: FlipReward, rows: list[Any]) -> ScoreBatch:
    return reward.score(*map(list, zip(*rows, strict=True)))


def test_off_and_report_change_nothing(make: Callable[..., FlipReward]) -> None:
    plain, reported = score(make(), ROWS), score(make(copy_guard="report"), ROWS)
    assert plain.copied is None
    assert reported.copied == SHARES * 2
    rows = plain.to_dicts()
    assert [{**row, "copied": c} for row, c in zip(rows, SHARES * 2, strict=True)] == (
        reported.to_dicts()
    )
    assert "copied" not in rows[0]
    assert ScoreBatch.from_dicts(reported.to_dicts(), 1.0).copied == reported.copied


@pytest.mark.parametrize(
    "options",
    [{}, {"metric": "char_f1"}, {"style": "standalone"}],
    ids=str,
)
def test_discount_takes_the_copied_share_off(
    make: Callable[..., FlipReward], options: dict[str, Any]
) -> None:
    options = {**options, "max_new_tokens": 20}
    plain = score(make(**options), ROWS)
    batch = score(make(copy_guard="discount", **options), ROWS)
    pairs = zip(plain.rewards, SHARES * 2, strict=True)
    expected = [None if reward is None else reward * (1 - share) for reward, share in pairs]
    assert batch.rewards == pytest.approx(expected, abs=1e-15)
    assert batch.rewards[1] in (0.0, None)
    assert batch.rewards[0] == plain.rewards[0]
    assert (batch.precision, batch.recall) == (plain.precision, plain.recall)


@pytest.mark.parametrize("scoring", ["generate", "likelihood"])
def test_mask_inverts_what_is_left(make: Callable[..., FlipReward], scoring: str) -> None:
    batch = score(make(copy_guard="mask", scoring=scoring), ROWS)
    masked = [(x, mask_copies(x, y)[0], context) for x, y, context in ROWS]
    expected = score(make(scoring=scoring), masked)
    assert batch.rewards == expected.rewards
    assert batch.inferred == expected.inferred
    assert batch.n_prompt_tokens == expected.n_prompt_tokens
    assert batch.copied == SHARES * 2
    assert masked[1][1] == "[...]."


def test_a_context_may_say_what_it_likes(make: Callable[..., FlipReward]) -> None:
    rows = [(INSTRUCTION, RESPONSES[0], INSTRUCTION)]
    plain = score(make(), rows)
    for guard in ("mask", "discount"):
        batch = score(make(copy_guard=guard), rows)
        assert (batch.rewards, batch.copied) == (plain.rewards, [0.0])


def test_likelihoods_are_reported_beside_copies(make: Callable[..., FlipReward]) -> None:
    plain = score(make(scoring="likelihood"), ROWS)
    batch = score(make(scoring="likelihood", copy_guard="report"), ROWS)
    assert (batch.rewards, batch.copied) == (plain.rewards, SHARES * 2)


@pytest.mark.parametrize("guard", ["report", "mask", "discount"])
def test_a_row_is_by_itself(make: Callable[..., FlipReward], guard: str) -> None:
    reward = make(copy_guard=guard)
    order = random.Random(3).sample(range(len(ROWS)), len(ROWS))
    whole = score(reward, ROWS).to_dicts()
    shuffled = score(reward, [ROWS[i] for i in order]).to_dicts()
    assert shuffled == [whole[i] for i in order]
    halves = [score(reward, part).to_dicts() for part in (ROWS[:3], ROWS[3:])]
    assert halves[0] + halves[1] == whole


@pytest.mark.parametrize("guard", ["mask", "discount"])
def test_every_way_in_gives_the_same(make: Callable[..., FlipReward], guard: str) -> None:
    reward = make(copy_guard=guard)
    expected = score(reward, ROWS[:4])
    assert reward.score_chats([INSTRUCTION] * 4, RESPONSES).to_dicts() == expected.to_dicts()
    best = reward.score_best_of(INSTRUCTION, RESPONSES)
    assert best.best == max(range(4), key=lambda at: (expected.rewards[at], -at))
    known = [reward for reward in best.rewards if reward is not None]
    assert set(known) <= set(expected.rewards)
    assert best.n_pruned == 0 or guard == "mask"
    ends = [4, len(RESPONSES[2])]
    beginnings = reward.score_prefixes(INSTRUCTION, RESPONSES[2], ends)
    assert beginnings.copied == [0.0, SHARES[2]]
    assert beginnings.rewards[1] == expected.rewards[2]


@pytest.mark.parametrize("guard", ["report", "mask", "discount"])
def test_rows_that_come_one_by_one(make: Callable[..., FlipReward], guard: str) -> None:
    reward = make(copy_guard=guard)
    loop = RewardLoop(reward.config, reward.inverter)
    found: dict[int, Any] = {}
    for at, row in enumerate(ROWS):
        loop.add(*row, lambda scores, at=at: found.update({at: scores}))
    while loop.n_open:
        loop.step()
    assert [found[at] for at in range(len(ROWS))] == score(reward, ROWS).to_dicts()


def test_failures_have_no_share(make: Callable[..., FlipReward]) -> None:
    reward = make(copy_guard="discount", on_failure=0.5)
    batch = reward.score([INSTRUCTION, INSTRUCTION], [3, INSTRUCTION])
    assert (batch.rewards, batch.copied) == ([0.5, 0.0], [None, 1.0])


def test_every_sample_is_discounted_that_is_worth_something() -> None:
    good, worse, bad = (Sample("x", "ok", reward=reward) for reward in (1.0, 0.5, -0.5))
    samples = [[good], [bad], [Sample()], [good, worse, Sample(status="empty")]]
    found = score_rows([Row("x", samples=s, factor=0.5) for s in samples], None)
    assert [scores.reward for scores in found] == [0.5, -0.5, None, 0.375]
    assert (found[3].std, found[3].f1) == (0.125, 1.0)
    assert score_rows([Row("x", samples=[Sample()], factor=0.5)], -2.0)[0].reward == -2.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"copy_guard": "on"}, "copy_guard must be one of off, .*, not 'on'"),
        ({"copy_guard": "discount", "scoring": "likelihood"}, "take 'mask' or 'report'"),
    ],
)
def test_wrong_use(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FlipConfig(**options)


def test_shares_are_those_of_the_texts() -> None:
    assert [copied_share(INSTRUCTION, response) for response in RESPONSES] == SHARES
