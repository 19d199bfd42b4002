"""The server in a process of its own: start, signals, end."""

import json
import signal
import threading
import time

import httpx
import pytest

pytest.importorskip("fastapi", reason="the server's packages")

from flipfast.errors import ConfigError
from flipfast.serving.server import _listen
from tests.serving.asking import TEXTS, served

WAIT = {"items": [{**TEXTS, "response": "wait"}]}
FAKE = "tests.serving.fake_server"


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


class Asking(threading.Thread):
    """A request under way."""

    def __init__(self, url, body):
        super().__init__()
        self.url, self.body = url, body
        self.answer = None
        self.start()

    def run(self):
        try:
            self.answer = httpx.post(f"{self.url}/v1/rewards", json=self.body, timeout=30)
        except httpx.HTTPError as error:
            self.answer = error


def state(url):
    return httpx.get(f"{url}/ready").json()["state"]


def in_flight(url):
    return "flipfast_rows_running 1.0" in httpx.get(f"{url}/metrics").text


def test_it_answers_while_the_engine_starts_and_ends_when_idle():
    with served(FAKE) as (process, url):
        early = httpx.post(f"{url}/v1/rewards", json=WAIT)
        assert (early.status_code, "retry-after" in early.headers) == (503, True)
        until(lambda: state(url) == "ready")
        with httpx.Client() as client:  # its connection stays open
            answer = client.post(f"{url}/v1/rewards", json={"items": [TEXTS]})
            assert answer.status_code == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0


def test_the_first_signal_drains():
    with served(FAKE) as (process, url):
        until(lambda: state(url) == "ready")
        body = {"items": [{**TEXTS, "response": "wait"}], "timeout": 2}
        asking = Asking(url, body)
        until(lambda: in_flight(url))
        process.send_signal(signal.SIGTERM)
        until(lambda: state(url) == "draining")
        assert httpx.post(f"{url}/v1/rewards", json=WAIT).status_code == 503
        out, log = process.communicate(timeout=30)
        asking.join(30)
    assert asking.answer.json()["rows"][0]["error"] == "not done within 2 s"
    assert process.returncode == 0
    assert out.decode().strip() == "closed: True, cancelled: 1"
    assert all(json.loads(line)["level"] == "info" for line in log.splitlines())


def test_the_second_signal_stops():
    with served(FAKE) as (process, url):
        until(lambda: state(url) == "ready")
        asking = Asking(url, WAIT)
        until(lambda: in_flight(url))
        process.send_signal(signal.SIGTERM)
        until(lambda: state(url) == "draining")
        process.send_signal(signal.SIGTERM)
        out, log = process.communicate(timeout=10)
        asking.join(10)
    assert out.decode().startswith("closed: True")
    assert asking.answer.status_code == 503
    assert b"Traceback" not in log


def test_an_engine_that_cannot_start_ends_the_server():
    with served(FAKE, "fail") as (process, _):
        out, log = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"ModelLoadError: no such model" in log
    assert out.startswith(b"closed: True")


def test_an_address_that_cannot_be_used():
    with _listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}.*in use"):
            _listen("127.0.0.1", port)
    for host, number in (("127.0.0.1", 2**20), ("no.such.host.invalid", 0)):
        with pytest.raises(ConfigError, match="cannot listen"):
            _listen(host, number)
