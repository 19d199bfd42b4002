"""A server that speaks the protocol, gives made-up rewards, and fails as it is told."""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from flipfast.scores import ScoredRow, failed_row
from tests.waiting import PATIENCE_S

Step = Callable[["Handler", dict[str, Any]], None]


def row(item: dict[str, Any]) -> ScoredRow:
    """A row that tells its item: its reward is the response's length."""
    response = item.get("response", item.get("completion"))
    if not isinstance(response, str):
        return failed_row(f"the response must be a string, got {response!r}")
    inferred = str(item.get("instruction", item.get("prompt")))
    return dict(failed_row(""), reward=float(len(response)), inferred=inferred, status="ok") | {
        "error": None
    }


def rows(handler: "Handler", body: dict[str, Any]) -> None:
    handler.reply(200, {"rows": [row(item) for item in body["items"]], "model": "stub"})


def status(code: int, message: str = "told to", **headers: str) -> Step:
    def step(handler: "Handler", body: dict[str, Any]) -> None:
        error = {"message": message, "type": "stub", "param": None}
        handler.reply(code, {"error": error}, {k.replace("_", "-"): v for k, v in headers.items()})

    return step


def drop(handler: "Handler", body: dict[str, Any]) -> None:
    handler.close_connection = True  # and no answer


def held(handler: "Handler", body: dict[str, Any]) -> None:
    """Answers once the stub's `released` is set, as it is in the end."""
    handler.server.released.wait()
    rows(handler, body)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Stub"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        stub = self.server
        with stub.lock:
            stub.requests.append((self.path, body, self.headers, self.client_address[1]))
            stub.running += 1
            stub.most_running = max(stub.most_running, stub.running)
            step = stub.script.popleft() if stub.script else stub.usual
        try:
            step(self, body)
        except ConnectionError:  # the client has hung up
            pass
        finally:
            with stub.lock:
                stub.running -= 1

    def reply(self, code: int, value: Any, headers: dict[str, str] | None = None) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        for name, text in {"content-length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class Stub(ThreadingHTTPServer):
    """Plays `script`, one step a request, and then `usual`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.script: deque[Step] = deque()
        self.usual: Step = rows
        self.requests: list[tuple[str, dict[str, Any], Any, int]] = []
        self.running = self.most_running = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def ports(self) -> set[int]:
        """The callers' ports: as many as there were connections."""
        return {port for *_, port in self.requests}


@contextmanager
def running_stub() -> Iterator[Stub]:
    stub = Stub()
    thread = threading.Thread(target=stub.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield stub
    finally:
        stub.released.set()
        stub.shutdown()
        stub.server_close()
        thread.join(PATIENCE_S)
