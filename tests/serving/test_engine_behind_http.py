"""The embedded model behind the server: the rewards are those of FlipReward, to the bit."""

import asyncio
import contextlib
import json
from collections import Counter
from importlib.resources import files

import pytest

pytest.importorskip("fastapi", reason="the server's packages")

import httpx

from flipfast import FlipReward
from flipfast.serving.app import create_app
from flipfast.serving.async_engine import AsyncFlipEngine
from flipfast.serving.options import ServerOptions
from tests.serving.asking import running
from tests.serving.holding import Hold
from tests.waiting import PATIENCE_S

OPTIONS = {"max_new_tokens": 24}
NO_LIMITS = httpx.Limits(max_connections=None)


def texts():
    lines = files("flipfast").joinpath("assets/demo_groups.jsonl").read_text("utf-8").splitlines()
    groups = [json.loads(line) for line in lines]
    return [(group["instruction"], text) for group in groups for text in group["responses"]][:24]


@pytest.fixture(scope="module")
def reward():
    with FlipReward(**OPTIONS) as reward:
        yield reward


@pytest.fixture(scope="module")
def expected(reward):
    return reward.score(*zip(*texts(), strict=True)).to_dicts()


@contextlib.contextmanager
def server(reward, max_queue):
    engine = AsyncFlipEngine(inverter=reward.inverter, max_queue=max_queue, **OPTIONS)
    try:
        with running(create_app(engine, ServerOptions(max_queue=max_queue))) as url:
            yield engine, url
    finally:
        engine.shut_down()


def ask_at_once(url, n, after_first=lambda: None):
    """The answers to n callers with a row each, all at a time."""

    async def main():
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, limits=NO_LIMITS) as client:

            async def one(caller):
                instruction, response = texts()[caller % 24]
                body = {"items": [{"instruction": instruction, "response": response}]}
                headers = {"X-Flipfast-Caller": f"rank {caller}"}
                return await client.post("/v1/rewards", json=body, headers=headers)

            calls = [asyncio.create_task(one(caller)) for caller in range(n)]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            after_first()
            return await asyncio.gather(*calls)

    return asyncio.run(asyncio.wait_for(main(), PATIENCE_S))


@pytest.mark.slow
def test_single_rows_of_many_callers_at_a_time(reward, expected):
    with server(reward, max_queue=64) as (_, url):
        answers = ask_at_once(url, 24)
        metrics = httpx.get(f"{url}/metrics", timeout=PATIENCE_S).text
    assert [answer.json()["rows"][0] for answer in answers] == expected
    assert "flipfast_engine_sampling_passes_total" in metrics
    assert "flipfast_engine_rewards_total 24.0" in metrics


@pytest.mark.slow
def test_overload_is_answered_and_harms_no_reward(reward, expected, monkeypatch):
    with server(reward, max_queue=8) as (engine, url):
        hold = Hold(monkeypatch, engine)  # until the first one is refused
        answers = ask_at_once(url, 120, hold.release)
        after = ask_at_once(url, 1)
    codes = Counter(answer.status_code for answer in [*answers, *after])
    assert set(codes) == {200, 429}
    assert after[0].status_code == 200
    for caller, answer in enumerate(answers):
        if answer.status_code == 200:
            assert answer.json()["rows"] == [expected[caller % 24]]
        else:
            assert int(answer.headers["retry-after"]) >= 1
