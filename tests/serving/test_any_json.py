"""Whatever is sent, the answer is a success or says what was wrong: never a 500."""

import json

import pytest

pytest.importorskip("fastapi", reason="the server's packages")

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from flipfast.serving.app import create_app
from flipfast.serving.async_engine import AsyncFlipEngine
from flipfast.serving.options import ServerOptions
from tests.serving.fake_scorer import FakeScorer
from tests.waiting import PATIENCE_S

TEXT = st.text(st.characters(codec=None, categories=None), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
MESSAGES = st.lists(st.fixed_dictionaries({"role": TEXT, "content": VALUES}), max_size=3)
FIELDS = {
    "/v1/rewards": ["items", "timeout"],
    "/get_reward": ["query", "prompts", "labels"],
    "/remote_rm": ["prompt", "response", "label"],
    "/v1/chat/completions": ["messages", "max_tokens", "temperature", "top_p", "top_k", "stop"],
    "/sleep": ["drop_weights"],
    "/update_weights": ["folder"],
}
ITEM_FIELDS = ["instruction", "response", "context", "prompt", "completion"]
ITEMS = st.lists(st.dictionaries(st.sampled_from(ITEM_FIELDS), VALUES | MESSAGES, max_size=4))
NEAR_ITEMS = st.fixed_dictionaries(
    {"instruction": TEXT | VALUES, "response": TEXT | VALUES}, optional={"context": TEXT | VALUES}
) | st.fixed_dictionaries({"prompt": TEXT | MESSAGES}, optional={"completion": TEXT | MESSAGES})
ROLES = st.sampled_from(["system", "user", "assistant", "tool"]) | TEXT
NEAR_MESSAGES = st.lists(st.fixed_dictionaries({"role": ROLES, "content": TEXT}), max_size=4)
GOOD = {"instruction": "Name a river.", "response": "The Po."}
SLIME = {"prompt": "Name a river.", "response": "The Po."}


def bodies(path):
    value = VALUES | MESSAGES | ITEMS | st.lists(TEXT, max_size=3)
    near = st.dictionaries(st.sampled_from(FIELDS[path]), value)
    return st.one_of(VALUES.map(json.dumps), near.map(json.dumps), st.binary(max_size=20))


def asked(client, path, body):
    """The answer to a body, which must be one that a client can read."""
    kind = {"Content-Type": "application/json"}
    answer = client.post(path, content=body, headers=kind)
    assert answer.status_code == 200 or 400 <= answer.status_code < 500, answer.text
    found = json.loads(answer.content, parse_constant=pytest.fail)
    assert answer.status_code == 200 or found["error"]["message"]
    return answer


@pytest.fixture(scope="module")
def fake():
    app = create_app(FakeScorer(), ServerOptions(admin=True, timeout=PATIENCE_S))
    with TestClient(app) as client:
        yield client


@pytest.mark.slow
@pytest.mark.parametrize("path", FIELDS)
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_body(fake, path, data):
    asked(fake, "/wake", "{}")
    asked(fake, path, data.draw(bodies(path)))


@pytest.fixture(scope="module")
def embedded():
    engine = AsyncFlipEngine(max_new_tokens=1)
    with TestClient(create_app(engine)) as client:
        yield client
    engine.shut_down()


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(items=st.lists(VALUES | NEAR_ITEMS, max_size=4))
def test_any_item_before_the_engine(embedded, items):
    answer = asked(embedded, "/v1/rewards", json.dumps({"items": [*items, GOOD]}))
    rows = answer.json()["rows"]
    assert len(rows) == len(items) + 1
    assert rows[-1]["status"] != "error"
    assert "the server failed" not in answer.text


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@example(messages=[{"role": "user", "content": "\ud800 half a character"}])
@given(messages=NEAR_MESSAGES)
def test_any_conversation_before_the_engine(embedded, messages):
    body = {"messages": messages, "max_tokens": 1}
    asked(embedded, "/v1/chat/completions", json.dumps(body))
    assert asked(embedded, "/remote_rm", json.dumps(SLIME)).status_code == 200
