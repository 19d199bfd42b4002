"""One inverter for several rewards and threads, and a trainer that wants its memory between."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest
import torch

from flipfast import FlipReward
from flipfast.backends.native import NativeInverter
from flipfast.training.world import World

OPTIONS: list[dict[str, Any]] = [
    {},
    {"style": "standalone", "max_new_tokens": 30},
    {"temperature": 4.0, "seed": 3, "max_new_tokens": 30},
    {"scoring": "likelihood"},
]


def rows() -> tuple[list[str], list[str]]:
    rng, world = Random(9), World(held_out=True)
    samples = world.group(rng).samples
    return [s.instruction for s in samples], [s.response for s in samples]


@pytest.fixture(scope="module")
def owner() -> Iterator[FlipReward]:
    with FlipReward(device="cpu", dtype="float32", memory=2**28) as reward:
        yield reward


@pytest.mark.slow
def test_rewards_of_several_kinds_and_threads_share_one_model(owner: FlipReward) -> None:
    rewards = [FlipReward(inverter=owner.inverter, **options) for options in OPTIONS]
    alone = [reward.score(*rows()).rewards for reward in rewards]
    assert len({str(each) for each in alone}) == len(OPTIONS)
    assert isinstance(owner.inverter, NativeInverter)
    owner.inverter.forget_prefixes()
    with ThreadPoolExecutor(2 * len(rewards)) as pool:
        together = list(pool.map(lambda reward: reward.score(*rows()).rewards, rewards * 2))
    assert together == alone * 2
    for reward in rewards:
        reward.close()  # not theirs: the model stays
    assert owner.score(*rows()).rewards == alone[0]


@pytest.mark.slow
@pytest.mark.parametrize("drop_weights", [False, True])
def test_a_step_of_training_between_two_batches(owner: FlipReward, drop_weights: bool) -> None:
    inverter = owner.inverter
    assert isinstance(inverter, NativeInverter)
    sharing = FlipReward(inverter=inverter, cache_rewards=100)
    expected = owner.score(*rows()).rewards
    assert sharing.score(*rows()).rewards == expected
    for _ in range(2):
        inverter.sleep(drop_weights=drop_weights)
        with torch.enable_grad():  # the trainer's turn
            weight = torch.ones(8, requires_grad=True)
            weight.square().sum().backward()
        inverter.wake()
        assert owner.score(*rows()).rewards == expected
        assert sharing.score(*rows()).rewards == expected
