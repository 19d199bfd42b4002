"""NeMo Gym's own classes where they can be imported, stand-ins for them elsewhere."""

import asyncio
import importlib
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from flipfast import FlipReward
from tests.trainers import standins
from tests.trainers.conftest import BREAD, RESPONSE, RIVER

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "nemo_gym"


@pytest.fixture
def nemo_gym(monkeypatch):
    """Our module. NeMo Gym 0.7 needs a newer Python than most have, and is 43 MB."""
    try:
        importlib.import_module("nemo_gym.base_resources_server")
    except ImportError:
        standins.module(monkeypatch, "nemo_gym.base_resources_server", **standins.NEMO_GYM)
        standins.module(monkeypatch, "nemo_gym.judge", JudgeError=standins.JudgeError)
    monkeypatch.delitem(sys.modules, "flipfast.trainers.nemo_gym", raising=False)
    yield importlib.import_module("flipfast.trainers.nemo_gym")
    sys.modules.pop("flipfast.trainers.nemo_gym", None)


def server(nemo_gym, **options):
    """A server as NeMo Gym makes it from its configuration."""
    place = {"name": "flip", "host": "127.0.0.1", "port": 1, "entrypoint": "app.py"}
    config = nemo_gym.FlipResourcesServerConfig(**place, domain="rlhf", **options)
    try:
        from nemo_gym.server_utils import ServerClient
    except ImportError:
        ServerClient = object
    client = MagicMock(spec=ServerClient)
    return nemo_gym.FlipResourcesServer(config=config, server_client=client)


def rollout(nemo_gym, asked, *items, **fields):
    """What `/verify` gets: a row of a dataset, and the response that a model gave."""
    response = {"id": "r", "object": "response", "created_at": 0.0, "model": "policy"}
    response |= {"output": list(items), "parallel_tool_calls": False, "tool_choice": "auto"}
    row = {"responses_create_params": {"input": asked}, "response": response | {"tools": []}}
    return nemo_gym.FlipVerifyRequest(**row, **fields)


def message(text):
    part = {"type": "output_text", "text": text, "annotations": []}
    kind = {"type": "message", "id": "m", "status": "completed"}
    return {**kind, "role": "assistant", "content": [part]}


def verify(nemo_gym, body, **options):
    return asyncio.run(server(nemo_gym, **options).verify(body))


REASONING = {"type": "reasoning", "id": "t", "summary": []}
CALL = {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c", "id": "c"}


def test_an_answer(flip: FlipReward, nemo_gym):
    asked = [{"role": "user", "content": BREAD}]
    body = rollout(nemo_gym, asked, REASONING, message(RESPONSE), row=7)
    found = verify(nemo_gym, body)
    [expected] = flip.score_chats([asked], [RESPONSE]).to_dicts()
    assert found.reward == expected["reward"] > 0
    parts = {"flip_precision": expected["precision"], "flip_recall": expected["recall"]}
    assert found.reward_components == parts
    assert {key: getattr(found, key) for key in parts} == parts
    assert found.flip_inferred == expected["inferred"]
    assert (found.mask_sample, found.failure_kind, found.failure_reason) == (False, None, None)
    assert found.model_dump()["row"] == 7  # the row's own fields stay


def test_the_instruction_may_be_a_field_of_the_row(flip: FlipReward, nemo_gym):
    body = rollout(nemo_gym, "Template: " + RIVER, message("The Seine."), question=RIVER)
    found = verify(nemo_gym, body, instruction_key="question")
    assert [found.reward] == flip([RIVER], ["The Seine."])


def test_a_bad_row_is_told_apart_from_a_bad_answer(nemo_gym):
    silent = verify(nemo_gym, rollout(nemo_gym, BREAD, CALL), on_failure=-1.0)
    assert (silent.reward, silent.mask_sample, silent.flip_failed) == (-1.0, False, 1.0)
    assert silent.flip_status == "contentless"
    assert silent.failure_reason
    unasked = verify(nemo_gym, rollout(nemo_gym, BREAD, message("Hi.")), instruction_key="question")
    assert (unasked.reward, unasked.mask_sample) == (0.0, True)
    assert unasked.failure_kind == "verifier_error"
    assert unasked.failure_reason
    assert silent.reward_components.keys() == unasked.reward_components.keys()


def test_a_row_that_cannot_be_scored_now_is_to_be_tried_again(nemo_gym):
    body = rollout(nemo_gym, BREAD, message(RESPONSE))
    with pytest.raises(nemo_gym.JudgeError, match="127.0.0.1:9"):
        verify(nemo_gym, body, target="http://127.0.0.1:9", options={"max_retries": 0})


def test_the_example_names_what_there_is(nemo_gym):
    yaml = pytest.importorskip("yaml")
    config = yaml.safe_load((FOLDER / "configs" / "flip.yaml").read_text())
    entry = config["flip"]["resources_servers"]["flip"]
    assert (FOLDER / entry["entrypoint"]).is_file()
    known = nemo_gym.FlipResourcesServerConfig.model_fields
    assert {"target", "timeout"} <= known.keys() & entry.keys()
    agent = config["flip_simple_agent"]["responses_api_agents"]["simple_agent"]
    assert agent["resources_server"]["name"] in config
