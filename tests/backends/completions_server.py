"""A server with vLLM's `/v1/models` and `/v1/completions`, run by an inverter of this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from flipfast.backends import InversionRequest, Inverter, SamplingParams

# Those of vLLM 0.11's CompletionRequest that an inverter could have a use for.
FIELDS = {
    "max_tokens", "min_p", "model", "n", "prompt", "repetition_penalty", "return_token_ids", "seed",
    "stop", "stop_token_ids", "temperature", "top_k", "top_p",
}  # fmt: skip
Answer = tuple[int, dict[str, Any], dict[str, str]]  # status, content, headers


class CompletionsServer(ThreadingHTTPServer):
    """Answers with what its inverter writes.

    Attributes:
        address: where it is.
        bodies: of the completions it was asked for, all of them.
        keys: what stood in the Authorization headers of all requests.
        most_at_once: requests that were under way together.
        fault: gives the answer to a body in the place of the inverter's; None for no fault, and
            "drop" for a connection that is closed.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, inverter: Inverter, model: str, card: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.most_at_once = 0
        self.gives_token_ids = True
        self.fault: Callable[[dict[str, Any]], Answer | str | None] = lambda body: None
        self.lock = threading.Lock()
        self._inverter, self._model, self._card = inverter, model, card
        self._n_now = 0

    def models(self) -> Answer:
        card = {"id": self._model, "object": "model", "root": self._model, **self._card}
        return 200, {"object": "list", "data": [card]}, {}

    def answer(self, body: dict[str, Any]) -> Answer | str:
        with self.lock:
            self.bodies.append(body)
            self._n_now += 1
            self.most_at_once = max(self.most_at_once, self._n_now)
        try:
            return self.fault(body) or self._complete(body)
        finally:
            with self.lock:
                self._n_now -= 1

    def _complete(self, body: dict[str, Any]) -> Answer:
        unknown = set(body) - FIELDS
        if unknown:
            return error(400, f"unknown fields {unknown}")
        if body["model"] != self._model:
            return error(404, f"The model `{body['model']}` does not exist.")
        ids, seed = body["prompt"], body.get("seed", 0)
        if not all(type(token_id) is int for token_id in ids) or not -(2**63) <= seed < 2**63:
            return error(422, "wrong types")
        sampling = SamplingParams(
            body["max_tokens"],
            body["temperature"],
            body.get("top_p", 1.0),
            max(0, body.get("top_k", 0)),
        )
        (found,) = self._inverter.generate([InversionRequest(ids, seed)], sampling)
        if found.error is not None:
            return error(400, found.error)
        choice: dict[str, Any] = {
            "index": 0, "text": found.text, "logprobs": None, "finish_reason": found.finish_reason,
        }  # fmt: skip
        if self.gives_token_ids and body.get("return_token_ids"):
            end = [min(self._inverter.end_ids)] if found.finish_reason == "stop" else []
            choice["token_ids"] = [*found.output_ids, *end]
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(found.output_ids)}
        return 200, {"object": "text_completion", "choices": [choice], "usage": usage}, {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: CompletionsServer

    def do_GET(self) -> None:
        self.server.keys.add(self.headers.get("Authorization"))
        self._send(self.server.models() if self.path == "/v1/models" else error(404, "Not Found"))

    def do_POST(self) -> None:
        self.server.keys.add(self.headers.get("Authorization"))
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/completions":
            return self._send(error(404, "Not Found"))
        answer = self.server.answer(body)
        if isinstance(answer, str):
            self.close_connection = True
            return None
        return self._send(answer)

    def _send(self, answer: Answer) -> None:
        status, content, headers = answer
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def error(status: int, message: str, headers: dict[str, str] | None = None) -> Answer:
    """As vLLM gives one."""
    return status, {"error": {"message": message, "code": status}}, headers or {}


@contextmanager
def completions_server(
    inverter: Inverter, model: str, card: dict[str, Any] | None = None
) -> Iterator[CompletionsServer]:
    """A running server.

    Args:
        inverter: writes the answers.
        model: what it is called there.
        card: what else its entry in the list of models has.
    """
    server = CompletionsServer(inverter, model, card or {})
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
