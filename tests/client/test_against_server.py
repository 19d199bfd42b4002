"""The clients against the real server and the embedded model: FlipReward's rewards, to the bit."""

import asyncio
import json
from importlib.resources import files

import pytest

pytest.importorskip("fastapi", reason="the server's packages")

from flipfast import FlipReward
from flipfast.client import AsyncFlipClient, FlipClient, _protocol
from flipfast.errors import FlipfastError, QueueFullError, UnavailableError
from flipfast.serving.app import create_app
from flipfast.serving.async_engine import AsyncFlipEngine
from flipfast.serving.options import ServerOptions
from tests.serving.asking import running
from tests.serving.holding import Hold
from tests.waiting import PATIENCE_S

OPTIONS = {"max_new_tokens": 24}


@pytest.fixture(scope="module")
def flip():
    with FlipReward(**OPTIONS) as reward:
        yield reward


@pytest.fixture(scope="module")
def engine(flip):
    engine = AsyncFlipEngine(inverter=flip.inverter, **OPTIONS)
    yield engine
    engine.shut_down()


@pytest.fixture(scope="module")
def url(engine):
    with running(create_app(engine)) as address:
        yield address


@pytest.fixture(scope="module")
def texts():
    lines = files("flipfast").joinpath("assets/demo_groups.jsonl").read_text("utf-8").splitlines()
    groups = [json.loads(line) for line in lines]
    pairs = [(group["instruction"], text) for group in groups for text in group["responses"]]
    return [list(column) for column in zip(*pairs[:20], strict=True)]


def test_a_batch(flip, url, texts, monkeypatch):
    monkeypatch.setattr(_protocol, "_MAX_ROWS", 7)
    with FlipClient(url) as client:
        assert client.score(*texts).to_dicts() == flip.score(*texts).to_dicts()


def test_rows_of_many_tasks(flip, url, texts):
    async def main():
        client = AsyncFlipClient(url)
        return await asyncio.gather(
            *(client.score_row(*pair, caller="me") for pair in zip(*texts, strict=True))
        )

    rows = asyncio.run(asyncio.wait_for(main(), PATIENCE_S))
    assert rows == flip.score(*texts).to_dicts()


def test_bad_rows_beside_good_ones(flip, url):
    instructions = ["Name a river.", 3, "Say \ud800.", "", "Say hi."]
    responses = ["The Rhine is a river.", "x", "\0 \u2028", "", None]
    expected = flip.score(instructions, responses).to_dicts()
    with FlipClient(url) as client:
        assert client.score(instructions, responses).to_dicts() == expected


def test_chats(flip, url):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hi."}]
    image = {"role": "user", "content": [{"type": "image", "image": object()}]}
    prompts = ["Name a river.", messages, [image, *messages], [], object()]
    completions = ["<think>Hm</think> The Rhine.", [{"role": "assistant", "content": "Hi!"}]]
    completions += ["Hi!", "x", "y"]
    prompts += ["Name a river."] * 4 + [[{"from": "human", "value": "Name a river."}]]
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}
    thought = {"role": "assistant", "content": "", "reasoning_content": "Hm"}
    completions += [None, call, [call, {"role": "tool", "content": "x"}], [thought]]
    completions.append({"from": "gpt", "value": "The Rhine."})
    expected = flip.score_chats(prompts, completions)
    with FlipClient(url) as client:
        batch = client.score_chats(prompts, completions)
        assert client(prompts, completions) == expected.rewards
    assert batch.to_dicts()[:4] == expected.to_dicts()[:4]
    assert batch.status == expected.status
    assert batch.to_dicts()[5:] == expected.to_dicts()[5:]
    assert batch.status[5:9] == ["contentless"] * 4
    assert batch.status[9] not in ("contentless", "error")


@pytest.mark.slow
def test_the_servers_refusals(engine):
    options = ServerOptions(api_key="secret", max_body=2000, max_queue=2)
    with running(create_app(engine, options)) as url:
        with pytest.raises(FlipfastError, match="FLIPFAST_API_KEY"):
            FlipClient(url, "wrong").score_row("a", "b")
        client = FlipClient(url, "secret", max_retries=0)
        batch = client.score(["Say hi."] * 2, ["Hi! " * 300, "x " * 3000])
        assert batch.errors[0] is None
        assert "413" in batch.errors[1]
        asyncio.run(engine.sleep())
        try:
            with pytest.raises(UnavailableError, match="asleep"):
                client.score_row("a", "b")
        finally:
            asyncio.run(engine.wake())
        assert client.score_row("Say hi.", "Hi!")["error"] is None


@pytest.mark.slow
def test_a_full_queue(engine, texts, monkeypatch):
    options = ServerOptions(max_requests=1)
    hold = Hold(monkeypatch, engine)
    pairs = list(zip(*texts, strict=True))[:6]
    with running(create_app(engine, options)) as url:

        async def main(client):
            calls = [asyncio.create_task(client.score_row(*pair)) for pair in pairs]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            hold.release()
            return await asyncio.gather(*calls, return_exceptions=True)

        answers = asyncio.run(main(AsyncFlipClient(url)))
        assert any(isinstance(answer, QueueFullError) for answer in answers)
        client = AsyncFlipClient(url, wait_when_full=True, timeout=PATIENCE_S)
        answers = asyncio.run(main(client))
        assert [answer["error"] for answer in answers] == [None] * len(pairs)
