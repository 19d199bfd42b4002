"""Trainers' files with a server's address, and the server's own routes: the same rewards."""

import asyncio
import socket

import httpx
import pytest
import torch

from flipfast import FlipReward
from flipfast.errors import UnavailableError
from flipfast.serving.app import create_app
from flipfast.serving.options import ServerOptions
from flipfast.trainers._scorers import TrainerScorer, scorer_of
from flipfast.trainers.openrlhf import RewardFunction
from flipfast.trainers.slime import FlipRewardModel
from flipfast.trainers.verl import compute_score
from tests.serving.asking import running
from tests.trainers.conftest import BREAD, CHAT, RESPONSE, ROWS
from tests.trainers.test_slime import ARGS, Sample
from tests.waiting import PATIENCE_S

PROMPT = f"<|im_start|>user\n{BREAD}<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def url():
    with running(create_app(scorer_of("embedded"), ServerOptions())) as address:
        yield address


def test_rows_over_http_have_the_rewards_of_a_batch(flip: FlipReward, url):
    prompts, completions = zip(*ROWS, strict=True)
    rows = TrainerScorer(url, on_failure=None).chats_now(prompts, completions)
    assert [row["reward"] for row in rows] == flip(prompts, completions)


def test_a_file_and_a_route_give_openrlhf_the_same(flip: FlipReward, url):
    query = f"{PROMPT}{RESPONSE}<|im_end|>"
    body = {"query": [query], "prompts": [PROMPT], "labels": [BREAD]}
    answer = httpx.post(f"{url}/get_reward", json=body, timeout=PATIENCE_S).json()
    assert answer["rewards"] == flip([BREAD], [RESPONSE])
    found = RewardFunction(url)([query], [PROMPT], [BREAD])
    assert torch.equal(found["rewards"], torch.tensor(answer["rewards"]))


def test_a_function_and_a_route_give_slime_the_same(flip: FlipReward, url):
    body = {"prompt": CHAT, "response": RESPONSE + "<|im_end|>", "label": None}
    answer = httpx.post(f"{url}/remote_rm", json=body, timeout=PATIENCE_S).json()
    assert [answer] == flip([CHAT], [RESPONSE])
    call = FlipRewardModel(url).rm(ARGS, Sample(prompt=CHAT, response=RESPONSE + "<|im_end|>"))
    assert asyncio.run(asyncio.wait_for(call, PATIENCE_S)) == answer


def test_verl_with_a_servers_address(flip: FlipReward, url):
    async def score_many():
        calls = [compute_score("d", RESPONSE, BREAD, {}, target=url) for _ in range(16)]
        return await asyncio.wait_for(asyncio.gather(*calls), PATIENCE_S)

    found = asyncio.run(score_many())
    assert {one["score"] for one in found} == set(flip([BREAD], [RESPONSE]))


def test_no_server_is_no_reward():
    with socket.socket() as deaf:  # it holds a port, and does not listen
        deaf.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(UnavailableError):
            TrainerScorer(url, max_retries=0).chats_now([BREAD], [RESPONSE])
