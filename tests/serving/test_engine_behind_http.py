"""The embedded model behind the server: the rewards are those of FlipReward, to the bit."""

import asyncio
import json
from importlib.resources import files

import pytest

pytest.importorskip("fastapi", reason="the server's packages")

import httpx

from flipfast import FlipReward
from flipfast.serving.app import create_app
from flipfast.serving.async_engine import AsyncFlipEngine
from tests.serving.asking import running

OPTIONS = {"max_new_tokens": 24}


def texts():
    lines = files("flipfast").joinpath("assets/demo_groups.jsonl").read_text("utf-8").splitlines()
    groups = [json.loads(line) for line in lines]
    return [(group["instruction"], text) for group in groups for text in group["responses"]][:24]


def test_single_rows_of_many_callers_at_a_time():
    async def main(url):
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:

            async def one(caller, instruction, response):
                body = {"items": [{"instruction": instruction, "response": response}]}
                headers = {"X-Flipfast-Caller": f"rank {caller}"}
                answer = await client.post("/v1/rewards", json=body, headers=headers)
                return answer.json()["rows"][0]

            return await asyncio.gather(*(one(at, *pair) for at, pair in enumerate(texts())))

    with FlipReward(**OPTIONS) as reward:
        batch = reward.score(*zip(*texts(), strict=True))
        engine = AsyncFlipEngine(inverter=reward.inverter, **OPTIONS)
        try:
            with running(create_app(engine)) as url:
                rows = asyncio.run(asyncio.wait_for(main(url), 100))
                metrics = httpx.get(f"{url}/metrics").text
        finally:
            engine.shut_down()
    assert rows == batch.to_dicts()
    assert "flipfast_engine_sampling_passes_total" in metrics
    assert "flipfast_engine_rewards_total 24.0" in metrics
