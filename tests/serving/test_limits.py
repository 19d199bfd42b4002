"""What is refused before it is parsed, and what ends early."""

import asyncio
import json
import socket

import pytest

pytest.importorskip("fastapi", reason="the server's packages")

import httpx

from flipfast.errors import ConfigError
from flipfast.serving import limits
from flipfast.serving.app import create_app
from flipfast.serving.options import ServerOptions
from tests.serving.asking import TEXTS, ask, client_of, post, running
from tests.serving.fake_scorer import FakeScorer
from tests.waiting import PATIENCE_S, TIMEOUTS_S, until, wait_until

BODY = {"items": [TEXTS]}
WAIT = {"items": [{**TEXTS, "response": "wait"}]}


def in_time(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, PATIENCE_S))


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("Bearer k3y", 200),
        ("Bearer k3", 401),
        ("Bearer k3y2", 401),
        ("k3y", 401),
        ("Bearer ké", 401),
        (None, 401),
    ],
)
def test_key(header, code):
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    answers = ask(
        ("POST", "/v1/rewards", BODY), ("GET", "/metrics"), api_key="k3y", headers=headers
    )
    assert [answer.status_code for answer in answers] == [code, code]
    if code == 401:
        assert answers[0].headers["www-authenticate"] == "Bearer"
        assert answers[0].json()["error"]["type"] == "authentication_error"


def test_no_key_is_needed_to_see_how_the_server_is():
    paths = ["/health", "/ready", "/openapi.json"]
    answers = ask(*(("GET", path) for path in paths), api_key="k3y")
    assert [answer.status_code for answer in answers] == [200] * 3
    assert "k3y" not in repr(ServerOptions(api_key="k3y"))


@pytest.mark.parametrize("wrong", [{"api_key": " "}, {"api_key": "é"}, {"timeout": 0}])
@pytest.mark.parametrize("also", [{"max_body": 0}, {"timeout": float("nan")}])
def test_options_that_cannot_be(wrong, also):
    for options in (wrong, also):
        with pytest.raises(ConfigError):
            ServerOptions(**options)


async def chunks(size, n, sent):
    for _ in range(n):
        sent.append(size)
        yield b" " * size


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_refused_and_not_read(chunked):
    async def main():
        sent = []
        async with client_of(create_app(FakeScorer(), ServerOptions(max_body=1000))) as client:
            content = chunks(400, 10, sent) if chunked else b" " * 1001
            answer = await client.post("/v1/rewards", content=content)
        assert answer.status_code == 413
        assert "1000 bytes" in answer.json()["error"]["message"]
        assert len(sent) <= 4

    in_time(main())


def test_a_body_of_the_largest_size_is_taken():
    body = b'{"items":[]}'
    assert post("/v1/rewards", body, max_body=len(body)).status_code == 200
    assert post("/v1/rewards", body, max_body=len(body) - 1).status_code == 413


def test_a_slow_body_is_given_up(monkeypatch):
    monkeypatch.setattr(limits, "_BODY_SECONDS", 0.1)

    async def slow():
        yield b"{"
        await asyncio.Event().wait()

    async def main():
        app = create_app(FakeScorer())
        async with client_of(app) as client:
            assert (await client.post("/v1/rewards", content=slow())).status_code == 408
        assert app.state.traffic == limits.Traffic()

    in_time(main())


def test_bodies_share_a_budget():
    async def main():
        scorer = FakeScorer()
        app = create_app(scorer, ServerOptions(max_body=100))
        async with client_of(app) as client:
            asked = [asyncio.create_task(client.post("/v1/rewards", json=WAIT)) for _ in range(40)]
            await until(lambda: sum(task.done() for task in asked) + scorer.waiting == 40)
            assert 0 < app.state.traffic.body_bytes <= 16 * 100
            scorer.go.set()
            codes = [(await task).status_code for task in asked]
        assert set(codes) == {200, 429}
        assert app.state.traffic == limits.Traffic()

    in_time(main())


def test_a_full_queue_refuses_before_the_body_is_looked_at():
    scorer = FakeScorer()
    scorer.queued = 8
    answer = post("/v1/rewards", b"no JSON", scorer=scorer, max_queue=8)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    scorer.queued = 7
    assert post("/v1/rewards", BODY, scorer=scorer, max_queue=8).status_code == 200
    two = {"items": [TEXTS, TEXTS]}
    assert post("/v1/rewards", two, scorer=scorer, max_queue=8).status_code == 429
    assert len(scorer.calls) == 1


@pytest.mark.parametrize("state", ["asleep", "starting", "failed"])
def test_an_engine_that_is_not_ready(state):
    scorer = FakeScorer()
    scorer.state = state
    answers = ask(
        ("POST", "/remote_rm", b"no JSON"), ("GET", "/ready"), ("GET", "/health"), scorer=scorer
    )
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert "retry-after" in answers[0].headers
    assert answers[1].json() == {"state": state}


def test_as_many_requests_as_may_be_in_flight():
    async def main():
        scorer = FakeScorer()
        app = create_app(scorer, ServerOptions(max_requests=2))
        async with client_of(app) as client:
            asked = [asyncio.create_task(client.post("/v1/rewards", json=WAIT)) for _ in range(5)]
            await until(lambda: sum(task.done() for task in asked) == 3 and scorer.waiting == 2)
            assert app.state.traffic.in_flight == 2
            scorer.go.set()
            codes = sorted([(await task).status_code for task in asked])
        assert codes == [200, 200, 429, 429, 429]
        assert app.state.traffic.in_flight == 0

    in_time(main())


def test_while_it_drains_what_is_in_flight_is_answered():
    async def main():
        scorer = FakeScorer()
        app = create_app(scorer)
        async with client_of(app) as client:
            asked = asyncio.create_task(client.post("/v1/rewards", json=WAIT))
            await until(lambda: scorer.waiting)
            app.state.traffic.draining = True
            refused = await client.post("/v1/rewards", json=BODY)
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
            assert (await client.get("/ready")).json() == {"state": "draining"}
            scorer.go.set()
            assert (await asked).status_code == 200

    in_time(main())


@pytest.mark.parametrize("path", ["/v1/rewards", "/v1/chat/completions"])
def test_a_client_that_has_gone_leaves_no_work(path):
    """Over a real connection, as the server alone can tell that it is closed."""
    scorer = FakeScorer()
    messages = [{"role": "user", "content": "wait"}]
    body = WAIT if path == "/v1/rewards" else {"messages": messages}

    async def main(url, app):
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as client:
            call = asyncio.create_task(client.post(path, json=body))
            await until(lambda: scorer.waiting)
            call.cancel()
            await asyncio.wait([call])
            await until(lambda: not scorer.waiting and not app.state.traffic.in_flight)
            text = (await client.get("/metrics")).text
        assert f'flipfast_requests_total{{code="499",route="{path}"}} 1.0' in text

    app = create_app(scorer)
    with running(app) as url:
        in_time(main(url, app))
    assert scorer.cancelled == 1


@pytest.mark.slow
def test_a_reply_that_nobody_takes_is_given_up(monkeypatch):
    body = json.dumps({"items": [TEXTS] * 1024}).encode()
    head = "POST /v1/rewards HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def bytes_taken(seconds):
        """Of the reply's 16 MiB; none where they were given up before they were there."""
        monkeypatch.setattr(limits, "_BODY_SECONDS", seconds)
        scorer = FakeScorer()
        scorer.padding = "x" * 2**14
        app = create_app(scorer, ServerOptions(timeout=seconds))
        with running(app) as url, socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            client.settimeout(PATIENCE_S)
            client.connect(("127.0.0.1", int(url.rpartition(":")[2])))
            client.sendall(request)
            ended = 'route="/v1/rewards"} 1.0'
            wait_until(lambda: ended in httpx.get(f"{url}/metrics", timeout=PATIENCE_S).text)
            taken = sum(len(part) for part in iter(lambda: client.recv(2**20), b""))
        return taken if scorer.calls else 0

    taken = next(filter(None, map(bytes_taken, TIMEOUTS_S)), 0)
    assert 0 < taken < 2**24  # the connection was closed before the reply's end
