"""The server in a process of its own: start, signals, end."""

import json
import signal
import threading

import httpx
import pytest

pytest.importorskip("fastapi", reason="the server's packages")

from flipfast.errors import ConfigError
from flipfast.serving.server import _listen
from tests.serving.asking import TEXTS, served
from tests.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.slow

WAIT = {"items": [{**TEXTS, "response": "wait"}]}
FAKE = "tests.serving.fake_server"


def post(url, body):
    return httpx.post(f"{url}/v1/rewards", json=body, timeout=PATIENCE_S)


class Asking(threading.Thread):
    """A request under way."""

    def __init__(self, url, body):
        super().__init__()
        self.url, self.body = url, body
        self.answer = None
        self.start()

    def run(self):
        try:
            self.answer = post(self.url, self.body)
        except httpx.HTTPError as error:
            self.answer = error


def state(url):
    return httpx.get(f"{url}/ready", timeout=PATIENCE_S).json()["state"]


def in_flight(url, n=1):
    metrics = httpx.get(f"{url}/metrics", timeout=PATIENCE_S).text
    return f"flipfast_rows_running {n}.0" in metrics


def make_ready(process, url):
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: state(url) == "ready")


def test_it_answers_while_the_engine_starts_and_ends_when_idle():
    with served(FAKE) as (process, url):
        early = post(url, WAIT)
        assert (early.status_code, "retry-after" in early.headers) == (503, True)
        make_ready(process, url)
        with httpx.Client(timeout=PATIENCE_S) as client:  # its connection stays open
            answer = client.post(f"{url}/v1/rewards", json={"items": [TEXTS]})
            assert answer.status_code == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 0


def test_the_first_signal_drains():
    with served(FAKE) as (process, url):
        make_ready(process, url)
        patient = Asking(url, WAIT)
        wait_until(lambda: in_flight(url))
        hasty = Asking(url, {**WAIT, "timeout": 0.5})
        wait_until(lambda: in_flight(url, 2) or hasty.answer is not None)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: state(url) == "draining")
        assert post(url, WAIT).status_code == 503
        hasty.join(PATIENCE_S)
        process.send_signal(signal.SIGUSR2)
        out, log = process.communicate(timeout=PATIENCE_S)
        patient.join(PATIENCE_S)
    assert hasty.answer.json()["rows"][0]["error"] == "not done within 0.5 s"
    assert patient.answer.json()["rows"][0]["error"] is None
    assert process.returncode == 0
    assert out.decode().strip() == "closed: True, cancelled: 1"
    assert all(json.loads(line)["level"] == "info" for line in log.splitlines())


def test_the_second_signal_stops():
    with served(FAKE) as (process, url):
        make_ready(process, url)
        asking = Asking(url, WAIT)
        wait_until(lambda: in_flight(url))
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: state(url) == "draining")
        process.send_signal(signal.SIGTERM)
        out, log = process.communicate(timeout=PATIENCE_S)
        asking.join(PATIENCE_S)
    assert out.decode().startswith("closed: True")
    assert asking.answer.status_code == 503
    assert b"Traceback" not in log


def test_an_engine_that_cannot_start_ends_the_server():
    with served(FAKE, "fail") as (process, _):
        process.send_signal(signal.SIGUSR1)
        out, log = process.communicate(timeout=PATIENCE_S)
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
