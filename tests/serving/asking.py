"""Ways to ask an application, or a running server."""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading

import httpx
import uvicorn

from flipfast.serving.app import create_app
from flipfast.serving.options import ServerOptions
from tests.serving.fake_scorer import FakeScorer
from tests.waiting import PATIENCE_S, wait_until

TEXTS = {"instruction": "name a river", "response": "a river"}


def ask(*calls, scorer=None, headers=None, **options):
    """The answers to calls (method, path, body) that are made one after the other."""

    async def main():
        app = create_app(scorer or FakeScorer(), ServerOptions(**options))
        async with client_of(app, headers) as client:
            return [await client.request(*call[:2], **_content(call[2:])) for call in calls]

    return asyncio.run(asyncio.wait_for(main(), PATIENCE_S))


def post(path, body, **how):
    """The answer to one call."""
    return ask(("POST", path, body), **how)[0]


def client_of(app, headers=None):
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)


def _content(body):
    if not body:
        return {}
    kind = {"Content-Type": "application/json"}
    content = body[0] if isinstance(body[0], (bytes, str)) else json.dumps(body[0])
    return {"content": content, "headers": kind}


@contextlib.contextmanager
def running(app):
    """The address of a server that runs on a thread."""
    config = uvicorn.Config(
        app,
        port=0,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=int(PATIENCE_S),  # nothing is to meet it hanging up
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


@contextlib.contextmanager
def served(*arguments):
    """The process of a server and its address, which its log tells."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        for line in process.stderr:
            entry = json.loads(line)
            if entry["message"] == "listening":
                yield process, entry["url"]
                return
        raise AssertionError("the server has not started")
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)
