"""NeMo-RL: the recorded call shape; its package is not on the registry."""

import importlib
import sys

import pytest
import torch

from flipfast import FlipReward
from tests.trainers import standins
from tests.trainers.conftest import BREAD, RESPONSE, RIVER

pytest.importorskip("ray", reason="an environment is a Ray actor: pip install ray")


@pytest.fixture
def nemo_rl(monkeypatch):
    """Our module, on stand-ins where NeMo-RL is not installed."""
    shapes = {
        "EnvironmentInterface": standins.EnvironmentInterface,
        "EnvironmentReturn": standins.EnvironmentReturn,
    }
    standins.module(monkeypatch, "nemo_rl.environments.interfaces", **shapes)
    monkeypatch.delitem(sys.modules, "flipfast.trainers.nemo_rl", raising=False)
    yield importlib.import_module("flipfast.trainers.nemo_rl")
    sys.modules.pop("flipfast.trainers.nemo_rl", None)


def log(response, prompt="<|im_start|>user\nwith a chat template<|im_end|>"):
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def test_a_batch(flip: FlipReward, nemo_rl):
    env = nemo_rl.FlipEnvironment({"on_failure": -1.0})
    chat = [{"role": "system", "content": "Be short."}, {"role": "user", "content": RIVER}]
    known = [{"ground_truth": BREAD}, {"ground_truth": chat}, {"other": 1}, None]
    texts = [RESPONSE, "The Seine.", RESPONSE, RESPONSE]
    found = env.step([log(text) for text in texts], known)
    expected = flip([BREAD, chat], texts[:2])
    assert torch.equal(found.rewards, torch.tensor([*expected, -1.0, -1.0]))
    assert found.terminateds.tolist() == [True] * 4
    assert found.metadata == known
    assert found.next_stop_strings == [None] * 4
    assert [told["content"] for told in found.observations[2:]] == ["Environment: error"] * 2
    assert found.answers[0] == flip.score([BREAD], [RESPONSE]).inferred[0]
    batch, metrics = env.global_post_process_and_metrics({"rewards": found.rewards})
    assert list(batch) == ["rewards"]
    assert metrics["flip_failed"] == 0.5
    assert metrics["flip_rows"] == 4.0
    assert env.global_post_process_and_metrics({})[1] == {"flip_rows": 0.0}


def test_rewards_in_parts(flip: FlipReward, nemo_rl):
    env = nemo_rl.FlipEnvironment({"parts": True})
    found = env.step([log(RESPONSE)] * 2, [{"ground_truth": BREAD}, {"other": 1}])
    scores = flip.score([BREAD], [RESPONSE])
    for name, values in (("precision", scores.precision), ("recall", scores.recall)):
        expected = torch.tensor([values[0], 0.0])
        assert torch.equal(found.rewards.pop(f"reward/flip_{name}"), expected)
    assert found.rewards == {}


def test_a_conversation_without_an_answer_harms_no_other(flip: FlipReward, nemo_rl):
    env = nemo_rl.FlipEnvironment({"instruction_key": "question"})
    known = [{"question": BREAD}] * 2
    found = env.step([log(RESPONSE)[:1], log(RESPONSE)], known)
    assert found.rewards.tolist() == torch.tensor([0.0, *flip([BREAD], [RESPONSE])]).tolist()


def test_it_is_registered_as_an_actor(nemo_rl, monkeypatch):
    registered, executables = {}, {}
    standins.module(monkeypatch, "nemo_rl.environments.utils", register_env=registered.__setitem__)
    standins.module(
        monkeypatch,
        "nemo_rl.distributed.ray_actor_environment_registry",
        ACTOR_ENVIRONMENT_REGISTRY=executables,
    )
    executable = type("PY_EXECUTABLES", (), {"SYSTEM": "python"})
    standins.module(monkeypatch, "nemo_rl.distributed.virtual_cluster", PY_EXECUTABLES=executable)
    nemo_rl.register()
    assert executables == {registered["flip"]: "python"}
    module, _, name = registered["flip"].rpartition(".")
    actor = getattr(importlib.import_module(module), name)
    assert callable(actor.options(num_gpus=1).remote)
