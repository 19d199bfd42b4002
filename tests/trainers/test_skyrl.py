"""SkyRL: skyrl_gym's own registry and base class."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from flipfast import FlipReward
from flipfast.errors import InputError
from tests.trainers.conftest import BREAD, CHAT, RESPONSE
from tests.waiting import PATIENCE_S

skyrl_gym = pytest.importorskip("skyrl_gym", reason="needs skyrl_gym: pip install skyrl-gym")


@pytest.fixture
def make():
    """A function that makes an environment as SkyRL's generator does."""
    from skyrl_gym.envs.registration import deregister

    def made(extras=None, **kwargs):
        skyrl_gym.register(id="flip", entry_point="flipfast.trainers.skyrl:FlipEnv", kwargs=kwargs)
        try:
            return skyrl_gym.make("flip", env_config={}, extras={"max_turns": 1, **(extras or {})})
        finally:
            deregister("flip")

    return made


def test_an_episode(flip: FlipReward, make):
    env = make()
    prompt, _ = env.init(CHAT)
    assert prompt == CHAT
    output = env.step(RESPONSE + "<|im_end|>")
    assert output["reward"] == flip([CHAT], [RESPONSE])[0]
    assert output["done"]
    assert output["observations"] == []
    assert output["metadata"]["status"] == "ok"
    assert env.get_metrics()["flip_failed"] == 0.0
    assert type(env).aggregate_metrics([env.get_metrics()])["flip_failed"] == 0.0
    env.close()


def test_many_threads(flip: FlipReward, make):
    envs = [make() for _ in range(8)]
    for env in envs:
        env.init(CHAT)
    with ThreadPoolExecutor(8) as pool:
        outputs = [*pool.map(lambda env: env.step(RESPONSE), envs, timeout=PATIENCE_S)]
    assert {output["reward"] for output in outputs} == set(flip([CHAT], [RESPONSE]))


@pytest.mark.parametrize("place", ["reward_spec", "extra_info", None])
def test_where_the_instruction_is(flip: FlipReward, make, place):
    row = {"question": BREAD}
    env = make({place: row} if place else row, instruction_key="question")
    env.init(CHAT)
    assert env.step(RESPONSE)["reward"] == flip([BREAD], [RESPONSE])[0]


def test_a_missing_instruction_says_what_there_is(make):
    with pytest.raises(
        InputError, match="no 'question', it has 'max_turns', 'reward_spec', 'ground_truth'"
    ):
        make({"reward_spec": {"ground_truth": "42"}}, instruction_key="question")


def test_a_failure_has_a_number(make):
    env = make(on_failure=-1.0)
    env.init([CHAT[0]])
    output = env.step(RESPONSE)
    assert output["reward"] == -1.0
    assert output["metadata"]["flip_failed"] == 1.0
