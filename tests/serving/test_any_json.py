"""Whatever is sent, the answer is a success or says what was wrong: never a 500."""

import asyncio
import json

import pytest

pytest.importorskip("fastapi", reason="the server's packages")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flipfast.serving.app import create_app
from flipfast.serving.options import ServerOptions
from tests.serving.asking import client_of
from tests.serving.fake_scorer import FakeScorer

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


def bodies(path):
    value = VALUES | MESSAGES | ITEMS | st.lists(TEXT, max_size=3)
    near = st.dictionaries(st.sampled_from(FIELDS[path]), value)
    return st.one_of(VALUES.map(json.dumps), near.map(json.dumps), st.binary(max_size=20))


@pytest.mark.parametrize("path", FIELDS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_body(path, data):
    body = data.draw(bodies(path))

    async def main():
        app = create_app(FakeScorer(), ServerOptions(admin=True, timeout=0.05))
        async with client_of(app) as client:
            kind = {"Content-Type": "application/json"}
            return await client.post(path, content=body, headers=kind)

    answer = asyncio.run(main())
    assert answer.status_code == 200 or 400 <= answer.status_code < 500, answer.text
    json.loads(answer.content, parse_constant=pytest.fail)
    if answer.status_code != 200:
        assert answer.json()["error"]["message"]
