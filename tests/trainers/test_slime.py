"""slime: the recorded call shape; its package is not on the registry."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from flipfast import FlipReward
from flipfast.errors import InputError
from flipfast.trainers.slime import FlipRewardModel, rm
from tests.trainers.conftest import BREAD, CHAT, RESPONSE, RIVER
from tests.trainers.fakes import UNPARSED, FixedScorer
from tests.waiting import PATIENCE_S

ARGS = SimpleNamespace(rm_url=None, reward_key=None, group_rm=False)


@dataclass
class Sample:
    """The fields of slime's Sample that a reward model sees."""

    prompt: Any = BREAD
    response: str = RESPONSE
    label: str | None = None
    metadata: dict | None = field(default_factory=dict)


def call(model, sample, args=ARGS):
    return asyncio.run(asyncio.wait_for(model(args, sample, evaluation=False), PATIENCE_S))


def test_a_sample_a_group_and_a_list_of_none(flip: FlipReward):
    samples = [Sample(), Sample(prompt=CHAT), Sample(prompt="templated", label=RIVER)]
    expected = flip([BREAD, CHAT, RIVER], [RESPONSE] * 3)
    assert [call(rm, sample) for sample in samples] == expected
    assert call(rm, samples) == expected
    assert call(rm, []) == []


def test_special_tokens_are_no_part_of_the_response(flip: FlipReward):
    assert [call(rm, Sample(response=RESPONSE + "<|im_end|>"))] == flip([BREAD], [RESPONSE])


def test_a_reward_key_gives_dicts(flip: FlipReward):
    args = SimpleNamespace(rm_url=None, reward_key="flip", group_rm=True)
    (found,) = call(rm, [Sample()], args)
    assert found["flip"] == flip([BREAD], [RESPONSE])[0]
    assert found["flip_failed"] == 0.0


def test_a_failure_is_told_in_the_metadata():
    sample = Sample(metadata=None)
    assert call(FlipRewardModel(FixedScorer(UNPARSED), on_failure=-1.0).rm, sample) == -1.0
    assert sample.metadata["flip_status"] == "unparsed"
    assert sample.metadata["flip_failed"] == 1.0


@pytest.mark.parametrize("wrong", [None, 7, [3], {}], ids=repr)
def test_a_bad_sample_harms_no_other(flip: FlipReward, wrong):
    samples = [Sample(response=wrong), Sample(), Sample(prompt=wrong)]
    assert call(rm, samples) == [0.0, *flip([BREAD], [RESPONSE]), 0.0]
    assert [sample.metadata["flip_failed"] for sample in samples] == [1.0, 0.0, 1.0]


def test_the_instruction_in_the_metadata(flip: FlipReward):
    model = FlipRewardModel(instruction_key="question").rm
    sample = Sample(prompt="templated", label="42", metadata={"question": BREAD})
    assert [call(model, sample)] == flip([BREAD], [RESPONSE])
    with pytest.raises(InputError, match="no 'question', it has nothing"):
        call(model, Sample())


def test_the_servers_address_is_slimes_rm_url(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "flipfast.trainers.slime.TrainerScorer",
        lambda target, **_: asked.append(target) or FakeRows(),
    )
    args = SimpleNamespace(rm_url="http://host:8000/remote_rm", reward_key=None)
    call(rm, Sample(), args)
    call(FlipRewardModel("http://other").rm, Sample(), args)
    call(rm, Sample())
    assert asked == ["http://host:8000", "http://other", None]


class FakeRows:
    async def chats(self, prompts, completions):
        return [{**UNPARSED, "reward": 0.0} for _ in prompts]
