"""SkyRL: skyrl_gym's own registry and base class."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from flipfast import FlipReward
from flipfast.errors import InputError
from flipfast.scoring.credit import turn_credit
from tests.trainers.conftest import BREAD, CHAT, RESPONSE
from tests.waiting import PATIENCE_S

skyrl_gym = pytest.importorskip("skyrl_gym", reason="needs skyrl_gym: pip install skyrl-gym")
base_text_env = pytest.importorskip("skyrl_gym.envs.base_text_env")


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


class TalkingEnv(base_text_env.BaseTextEnv):
    """Goes on for as many turns as it is told, with a reward for each."""

    def __init__(self, env_config, extras):
        super().__init__()
        self.left = extras["max_turns"]
        self.closed = False

    def step(self, action):
        self.left -= 1
        asked = [{"role": "user", "content": "Go on."}]
        return {"observations": asked, "reward": 0.5, "done": not self.left, "metadata": None}

    def get_metrics(self):
        return {"left": self.left}


@pytest.fixture
def talk():
    from skyrl_gym.envs.registration import deregister

    def made(turns, **kwargs):
        entries = {"talk": TalkingEnv, "flip": "flipfast.trainers.skyrl:FlipTurns"}
        options = {"talk": {}, "flip": {"env": "talk", **kwargs}}
        for name, entry in entries.items():
            skyrl_gym.register(id=name, entry_point=entry, kwargs=options[name])
        try:
            return skyrl_gym.make("flip", env_config={}, extras={"max_turns": turns})
        finally:
            for name in entries:
                deregister(name)

    return made


def test_credit_of_turns(flip: FlipReward, talk):
    turns = [RESPONSE, "", "That is all."]
    env = talk(3, weight=2.0)
    env.init(CHAT)
    outputs = [env.step(turn + "<|im_end|>") for turn in turns]
    assert [output["done"] for output in outputs] == [False, False, True]
    trace = [{"role": "assistant", "content": turn} for turn in turns]
    credits = [part.credit for part in turn_credit(flip, CHAT, trace).parts]
    assert credits[0] != 0
    assert [output["reward"] for output in outputs] == [0.5 + 2 * each for each in credits]
    assert outputs[-1]["metadata"]["flip_credit"] == credits[-1]
    assert env.get_metrics()["left"] == 0
    assert env.get_metrics()["flip_credit"] == credits[-1]


def test_a_turn_that_cannot_be_scored_gets_no_credit(flip: FlipReward, talk):
    env = talk(2, min_response_words=4)
    env.init(CHAT)
    first, second = env.step("Well."), env.step(RESPONSE)
    assert first["reward"] == 0.5
    assert env.get_metrics()["flip_failed"] == 0.0
    assert second["reward"] == 0.5  # nothing before it has a reward
