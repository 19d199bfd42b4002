"""The two clients against a server that fails on demand."""

import asyncio
import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
import threading
import time

import pytest

from flipfast.client import AsyncFlipClient, FlipClient, _call, _protocol, _transport
from flipfast.errors import (
    ConfigError,
    FlipfastError,
    InputError,
    QueueFullError,
    UnavailableError,
)
from tests.client.stub import drop, held, row, rows, running_stub, status
from tests.waiting import PATIENCE_S, TIMEOUTS_S, until

pytest.importorskip("httpx", reason="the client needs httpx")


@pytest.fixture
def stub(monkeypatch):
    for name in ("FLIPFAST_URL", "FLIPFAST_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    # On a busy machine a connection may rest for long between two requests.
    monkeypatch.setattr(_transport, "_KEEPALIVE_SECONDS", PATIENCE_S)
    with running_stub() as server:
        yield server


@pytest.fixture
def client(stub):
    with FlipClient(stub.url, timeout=PATIENCE_S) as made:
        yield made


def test_importing_the_client_takes_no_heavy_package():
    heavy = ["torch", "triton", "transformers", "tokenizers", "numpy", "httpx"]
    code = f"""
import sys
import flipfast.client
assert not [name for name in {heavy} if name in sys.modules]
flipfast.client.FlipClient("http://127.0.0.1:9", max_retries=0)([], [])
assert not [name for name in {heavy[:5]} if name in sys.modules]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE_S)


def test_a_batch(client, stub):
    batch = client.score(["Name a river.", "Say hi."], ["The Rhine.", "Hi"], [None, "system: x"])
    assert batch.rewards == [10.0, 2.0]
    assert batch.inferred == ["Name a river.", "Say hi."]
    path, body, _, _ = stub.requests[0]
    assert path == "/v1/rewards"
    assert body["items"] == [
        {"instruction": "Name a river.", "response": "The Rhine.", "context": None},
        {"instruction": "Say hi.", "response": "Hi", "context": "system: x"},
    ]
    assert 0 < body["timeout"] < PATIENCE_S


def test_single_rows_and_nothing_at_all(client, stub):
    assert client.score_row("Say hi.", "Hi") == row({"instruction": "Say hi.", "response": "Hi"})
    messages = [{"role": "user", "content": "Hi"}]
    client.score_chat(messages, "Hello", caller="ä b")
    _, body, headers, _ = stub.requests[-1]
    assert body["items"] == [{"prompt": messages, "completion": "Hello"}]
    assert headers["x-flipfast-caller"] == "%C3%A4%20b"
    assert client.score([], []).rewards == []
    assert len(stub.requests) == 2


@pytest.mark.parametrize("text", ["\ud800 half", "\0", "🙂 \u2028", '"}]'])
def test_any_text_arrives(client, text):
    assert client.score([text], [text]).inferred == [text]


def test_a_trainers_call(client, caplog):
    assert client.__name__ == "flip_reward"
    rewards = client(prompts=["a", "b"], completions=["hello", 3], trainer_state=None)
    assert rewards == [5.0, None]
    assert "1 of 2 rows have no reward: the response must be a string, got 3" in caplog.text
    with pytest.raises(InputError, match="2 prompts, 1 completions"):
        client(["a", "b"], ["c"])


def test_what_json_cannot_say_costs_its_row_alone(client):
    loop: list = []
    loop.append(loop)
    prompts = ["a", loop, "c", float("nan"), {(1, 2): 3}]
    batch = client.score_chats(prompts, ["xx"] * 5)
    assert batch.rewards == [2.0, None, 2.0, None, None]
    assert "the row cannot be sent" in batch.errors[1]


def test_an_image_in_a_message_is_left_behind(client, stub):
    message = {"role": "user", "content": [{"type": "image", "image": object()}]}
    client.score_chat([message], "x")
    part = stub.requests[0][1]["items"][0]["prompt"][0]["content"][0]
    assert part["image"]["not sent"].startswith("<object")


def test_verls_call(client, stub):
    call = client.compute_score
    assert call("flip", "Hi", "Say hi.", {"index": 0}, num=1) == {
        "score": 2.0,
        "inferred": "Say hi.",
        "status": "ok",
    }
    messages = [{"role": "user", "content": "Say hi."}]
    call("flip", "Hi", None, {"prompt": messages})
    assert stub.requests[-1][1]["items"][0]["prompt"] == messages
    failed = call(data_source="flip", solution_str=None, ground_truth="Say hi.")
    assert failed == {"score": 0.0, "inferred": "", "status": "error"}


def test_a_large_batch_goes_out_in_bounded_requests(client, stub, monkeypatch):
    monkeypatch.setattr(_protocol, "_MAX_ROWS", 4)
    monkeypatch.setattr(_call, "_MAX_REQUESTS", 3)

    def with_others(handler, body):
        """Waits until as many run as may, and a little for one too many."""
        if stub.running == 3:
            full.set()
        full.wait(PATIENCE_S)
        stub.released.wait(0.02)
        rows(handler, body)

    full = threading.Event()
    stub.usual = with_others
    texts = ["x" * n for n in range(50)]
    assert client.score(texts, texts).rewards == [float(n) for n in range(50)]
    sizes = [len(body["items"]) for _, body, *_ in stub.requests]  # some arrive side by side
    assert sorted(sizes) == [2] + [4] * 12
    assert stub.most_running == 3
    assert len(stub.ports) <= 3


def test_requests_are_bounded_in_characters_too(client, stub, monkeypatch):
    monkeypatch.setattr(_protocol, "_MAX_CHARS", 200)
    texts = ["x" * 60, "y" * 500, "z"]
    assert client.score(texts, texts).rewards == [60.0, 500.0, 1.0]
    assert len(stub.requests) == 3


def test_what_is_too_large_for_the_server_is_halved(client, stub):
    def strict(handler, body):
        texts = [item["response"] for item in body["items"]]
        too_large = sum(map(len, texts)) > 10
        (status(413, "at most 10") if too_large else rows)(handler, body)

    stub.usual = strict
    batch = client.score(["a"] * 5, ["x" * 4, "x" * 4, "x" * 11, "x" * 4, "x"])
    assert batch.rewards == [4.0, 4.0, None, 4.0, 1.0]
    assert batch.errors[2] == "at most 10 (HTTP 413)"


@pytest.mark.parametrize("failure", [status(503, retry_after="0"), drop], ids=["503", "drop"])
def test_an_unavailable_server_is_asked_again(client, stub, failure):
    stub.script.extend([failure, failure])
    assert client.score(["a"], ["xyz"]).rewards == [3.0]
    assert len(stub.requests) == 3


@pytest.mark.slow
def test_retry_after_is_kept_to(client, stub):
    stub.script.append(status(503, retry_after="0.3"))
    started = time.monotonic()
    client.score_row("a", "b")
    assert time.monotonic() - started >= 0.3


def test_a_wait_past_the_deadline_is_not_begun(stub):
    stub.usual = status(503, "asleep", retry_after=str(5 * PATIENCE_S))
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=r"asleep \(HTTP 503\)") as caught:
        FlipClient(stub.url, timeout=PATIENCE_S).score(["a"], ["b"])
    assert caught.value.retry_after == 5 * PATIENCE_S
    assert time.monotonic() - started < PATIENCE_S / 2
    assert len(stub.requests) == 1


@pytest.mark.slow
def test_retries_end(stub):
    stub.usual = status(503, retry_after="0")
    with pytest.raises(UnavailableError):
        FlipClient(stub.url, max_retries=2).score_row("a", "b")
    assert len(stub.requests) == 3


def test_nobody_there():
    with socket.socket() as deaf:  # it holds a port, and does not listen
        deaf.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=f"no answer from the server at {url}"):
            FlipClient(url, max_retries=1).score(["a"], ["b"])


@pytest.mark.parametrize(
    ("code", "error"),
    [(422, InputError), (429, QueueFullError), (401, FlipfastError), (500, FlipfastError)],
)
def test_other_errors_are_raised_at_once_with_the_servers_words(client, stub, code, error):
    stub.usual = status(code, "items.3 is wrong", retry_after="7")
    with pytest.raises(error, match=rf"items.3 is wrong \(HTTP {code}\)") as caught:
        client.score(["a"], ["b"])
    assert getattr(caught.value, "retry_after", 7) == 7
    assert len(stub.requests) == 1


@pytest.mark.slow
def test_a_full_queue_may_be_waited_for(stub):
    stub.script.extend([status(429, retry_after="0")] * 3)
    client = FlipClient(stub.url, max_retries=0, wait_when_full=True)
    assert client.score(["a"], ["bb"]).rewards == [2.0]


@pytest.mark.parametrize("content", [b"<html>busy</html>", b"[1]", b'{"rows": []}'])
def test_an_answer_that_is_none(client, stub, content):
    stub.usual = lambda handler, body: handler.reply(200, content)
    with pytest.raises(FlipfastError, match=r"not the answer|0 rows for 1 items"):
        client.score(["a"], ["b"])


@pytest.mark.slow
def test_rows_that_are_late_are_errors_and_the_others_have_rewards(stub, monkeypatch):
    monkeypatch.setattr(_protocol, "_MAX_ROWS", 1)

    def slow(handler, body):
        (held if body["items"][0]["response"] == "slow" else rows)(handler, body)

    stub.usual = slow
    for timeout in TIMEOUTS_S:
        client = FlipClient(stub.url, timeout=timeout)
        batch = client.score(["a", "b", "c"], ["x", "slow", "xx"])
        assert batch.errors[1] == f"not done within {timeout:g} s"
        if batch.rewards == [1.0, None, 2.0]:
            break
    assert batch.rewards == [1.0, None, 2.0]
    client = FlipClient(stub.url, timeout=PATIENCE_S)
    assert client.score(["a"], ["slow"], timeout=0.1).errors == ["not done within 0.1 s"]
    assert client.score(["a"], ["xyz"]).rewards == [3.0]


def test_a_failed_request_ends_the_others(client, stub, monkeypatch):
    monkeypatch.setattr(_protocol, "_MAX_ROWS", 1)
    monkeypatch.setattr(_call, "_MAX_REQUESTS", 2)
    stub.script.append(status(500))
    stub.usual = held
    with pytest.raises(FlipfastError, match="500"):
        client.score(["a"] * 20, ["b"] * 20)
    stub.released.set()
    for _ in range(20):  # in whose time the others would be sent
        client.score_row("c", "d")
    sent = [body["items"][0]["instruction"] for _, body, *_ in stub.requests]
    assert sent.count("a") < 8


def test_connections_are_used_again(client, stub):
    for _ in range(20):
        client.score_row("a", "b")
    assert len(stub.ports) == 1


@pytest.mark.slow
def test_many_threads_share_a_client(client, stub):
    results = {}

    def work(n):
        results[n] = [client.score(["a"], ["x" * n]).rewards[0] for _ in range(5)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert results == {n: [float(n)] * 5 for n in range(16)}
    assert len(stub.ports) <= 16


def test_the_address_and_the_key_come_from_the_environment(stub, monkeypatch):
    with pytest.raises(ConfigError, match="FLIPFAST_URL"):
        FlipClient()
    monkeypatch.setenv("FLIPFAST_URL", stub.url + "/")
    monkeypatch.setenv("FLIPFAST_API_KEY", "secret")
    FlipClient(caller="rank 3").score_row("a", "b")
    path, _, headers, _ = stub.requests[0]
    assert path == "/v1/rewards"
    assert headers["authorization"] == "Bearer secret"
    assert headers["x-flipfast-caller"] == "rank%203"
    FlipClient(stub.url, "other").score_row("a", "b")
    assert stub.requests[1][2]["authorization"] == "Bearer other"


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://x"])
def test_a_wrong_address(url, monkeypatch):
    monkeypatch.delenv("FLIPFAST_URL", raising=False)
    with pytest.raises(ConfigError, match="address"):
        AsyncFlipClient(url)


def test_pickles_leave_the_connections_behind(stub):
    client = FlipClient(stub.url, "secret", caller="me")
    client.score_row("a", "b")
    copy = pickle.loads(pickle.dumps(client))
    assert copy.score_row("a", "bc")["reward"] == 2.0
    assert len(stub.ports) == 1 + 1
    assert stub.requests[-1][2]["authorization"] == "Bearer secret"
    assert stub.requests[-1][2]["x-flipfast-caller"] == "me"
    reward = pickle.loads(pickle.dumps(AsyncFlipClient(stub.url).flip_reward))
    assert reward.__name__ == "flip_reward"
    assert asyncio.run(reward(prompts=["a"], completions=["b"], completion_ids=[[1]])) == [1.0]


def score_in_child(client, queue):
    queue.put((os.getpid(), client.score(["a"] * 3, ["x", "xx", "xxx"]).rewards))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forks_child_makes_connections_of_its_own(client, stub):
    client.score_row("a", "b")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [
        context.Process(target=score_in_child, args=(client, queue), daemon=True) for _ in range(2)
    ]
    for child in children:
        child.start()
    results = [queue.get(timeout=PATIENCE_S) for _ in children]
    for child in children:
        child.join(PATIENCE_S)
    assert len({pid for pid, _ in results}) == 2
    assert all(rewards == [1.0, 2.0, 3.0] for _, rewards in results)
    assert client.score(["a"], ["bb"]).rewards == [2.0]
    assert len(stub.ports) == 3  # the parent's own still serves it


def test_several_event_loops_one_after_the_other(stub):
    client = AsyncFlipClient(stub.url)

    async def several():
        batches = await asyncio.gather(*(client.score(["a"], ["x" * n]) for n in range(5)))
        return [batch.rewards for batch in batches]

    for _ in range(3):
        assert asyncio.run(several()) == [[float(n)] for n in range(5)]
    assert len(client._transport._open) == 1  # those of loops that have ended are dropped


def test_streamed_rows(stub):
    async def collect():
        client = AsyncFlipClient(stub.url)
        got = [pair async for pair in client.stream(["a"] * 6, ["x" * n for n in range(6)])]
        await client.aclose()
        return got

    got = asyncio.run(collect())
    assert sorted((place, one["reward"]) for place, one in got) == [(n, float(n)) for n in range(6)]


def test_cancelling_a_call_hangs_up(stub):
    stub.usual = held

    async def cancelled():
        client = AsyncFlipClient(stub.url)
        call = asyncio.create_task(client.score_row("a", "b"))
        await until(lambda: stub.running)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        stub.usual = rows
        return (await client.score_row("a", "bb"))["reward"]

    assert asyncio.run(asyncio.wait_for(cancelled(), PATIENCE_S)) == 2.0
