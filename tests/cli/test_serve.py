"""`flipfast serve`: its options, and a server with the embedded model."""

import signal
import time

import pytest

pytest.importorskip("fastapi", reason="the server's packages")

import httpx

from flipfast import FlipReward
from flipfast.cli import main, serve
from flipfast.config import FlipConfig
from flipfast.serving.options import ServerOptions
from tests.serving.asking import TEXTS, served

pytestmark = pytest.mark.slow


@pytest.fixture
def started(monkeypatch):
    """What the command would serve."""
    found = []

    def collect(main):
        found.append(main.cr_frame.f_locals)
        main.close()

    monkeypatch.setattr(serve, "_run", collect)
    monkeypatch.setattr(serve, "configure_logging", lambda: None)
    monkeypatch.delenv("FLIPFAST_API_KEY", raising=False)
    return found


def test_what_is_not_said_has_its_default(started):
    assert main(["serve"]) == 0
    assert started == [
        {
            "config": FlipConfig(),
            "options": ServerOptions(),
            "host": "127.0.0.1",
            "port": 8000,
            "workers": 1,
        }
    ]


def test_every_option(started, monkeypatch):
    monkeypatch.setenv("FLIPFAST_API_KEY", "of the environment")
    options = "--host 0.0.0.0 --port 1 --workers 2 --admin --max-queue 3 --max-body 4 --timeout 5"
    kept = ["--cache-rewards", "6"]
    assert main(["serve", *options.split(), "--log-texts", "--on-failure", "0.5", *kept]) == 0
    assert main(["serve", "--api-key", "k"]) == 0
    wanted = ServerOptions(
        max_queue=3,
        max_body=4,
        timeout=5,
        admin=True,
        log_texts=True,
        on_failure=0.5,
        api_key="of the environment",
    )
    assert started[0]["options"] == wanted
    assert started[0]["config"] == FlipConfig(on_failure=0.5, cache_rewards=6)
    assert (started[0]["host"], started[0]["port"], started[0]["workers"]) == ("0.0.0.0", 1, 2)
    assert started[1]["options"].api_key == "k"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0", "--admin"], "give --api-key, too"),
        (["--max-queue", "0"], "max_queue must be at least 1"),
        (["--timeout", "-1"], "timeout must be"),
    ],
)
def test_wrong_use(options, message, started, capsys):
    assert main(["serve", *options]) == 2
    assert message in capsys.readouterr().err


def test_the_embedded_model():
    with served("flipfast", "serve", "--port", "0", "--max-new-tokens", "24") as (process, url):
        transport = httpx.HTTPTransport(retries=3)
        with httpx.Client(base_url=url, transport=transport, timeout=300) as client:
            while (ready := client.get("/ready")).status_code == 503:
                assert ready.json() == {"state": "starting"}
                assert process.poll() is None
                time.sleep(0.1)
            rows = client.post("/v1/rewards", json={"items": [TEXTS]}).json()["rows"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 0
    with FlipReward(max_new_tokens=24) as reward:
        assert rows == reward.score([TEXTS["instruction"]], [TEXTS["response"]]).to_dicts()
