"""Encoding and decoding of the messages to and from a server; does no I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flipfast.errors import FlipfastError, InputError, QueueFullError, UnavailableError
from flipfast.scores import ScoredRow

PATH = "/v1/rewards"
# Per request. The server's engine takes rows as they arrive, so small requests cost it nothing,
# and resending one is cheap.
_MAX_ROWS = 64
_MAX_CHARS = 1 << 20


class TooLargeError(FlipfastError):
    """The server does not accept a request of this size."""


def encode(item: Mapping[str, Any]) -> str:
    """Encode an item of a request as JSON.

    A value that JSON cannot express, such as an image in a message, becomes a placeholder object:
    the server ignores it where it does not matter, and names it in the row's error where it does.

    Raises:
        InputError: the item has a non-finite number or keys of a wrong type, or contains itself.
    """
    try:
        return json.dumps(item, allow_nan=False, default=_shown)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the row cannot be sent: {error}") from None


def _shown(value: object) -> dict[str, str]:
    return {"not sent": f"{value!r:.80}"}


def split(items: Sequence[str]) -> Iterator[range]:
    """Yield the index ranges of the encoded items that make up each request, in order."""
    start = size = 0
    for place, item in enumerate(items):
        full = place - start == _MAX_ROWS or size + len(item) > _MAX_CHARS
        if full and place > start:
            yield range(start, place)
            start, size = place, 0
        size += len(item)
    if start < len(items):
        yield range(start, len(items))


def request_body(items: Sequence[str], seconds: float) -> bytes:
    """Return the request body for encoded items, with a timeout in seconds.

    The server gets a slightly shorter timeout, to leave time for its answer to arrive.
    """
    timeout = seconds - min(1.0, 0.1 * seconds)
    return f'{{"items":[{",".join(items)}],"timeout":{timeout:.3f}}}'.encode()


def read_rows(body: bytes, n_items: int) -> list[ScoredRow]:
    """Parse the rows of an answer.

    Raises:
        FlipfastError: it is not an answer with `n_items` rows.
    """
    try:
        rows: list[ScoredRow] = json.loads(body)["rows"]
    except (ValueError, KeyError, TypeError):
        raise FlipfastError(f"not the answer of a flipfast server: {body!r:.200}") from None
    if len(rows) != n_items:
        raise FlipfastError(f"the server answered {len(rows)} rows for {n_items} items")
    return rows


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> FlipfastError:
    """Return the exception for an answer with a status other than 200."""
    message = f"{_message(body)} (HTTP {status})"
    if status == 401:
        return FlipfastError(f"{message}: give api_key, or set FLIPFAST_API_KEY")
    if status == 413:
        return TooLargeError(message)
    if status == 422:
        return InputError(message)
    if status == 429:
        return QueueFullError(message, _retry_after(headers))
    if status == 503:
        return UnavailableError(message, _retry_after(headers))
    return FlipfastError(message)


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace").strip() or "no message"


def _retry_after(headers: Mapping[str, str]) -> float:
    """Return the Retry-After seconds; a date, which proxies may send, counts as one second."""
    try:
        return max(0.0, float(headers.get("retry-after", "")))
    except ValueError:
        return 1.0
