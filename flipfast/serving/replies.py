"""JSON replies, and the HTTP status of each error."""

from __future__ import annotations

import json
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from flipfast.errors import (
    FlipfastError,
    InputError,
    QueueFullError,
    UnavailableError,
)
from flipfast.serving.schema import ErrorReply

_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    503: "unavailable_error",
    504: "timeout_error",
}
# What the OpenAPI page says about every route that scores.
ERRORS: dict[int | str, dict[str, Any]] = {
    413: {"model": ErrorReply, "description": "The body is too large."},
    422: {"model": ErrorReply, "description": "A field is missing or wrong."},
    429: {"model": ErrorReply, "description": "Too much waits; see Retry-After."},
    503: {"model": ErrorReply, "description": "Nothing can be scored now; see Retry-After."},
}


class Reply(JSONResponse):
    """An ASCII JSON reply: a lone surrogate cannot be UTF-8, but it can be escaped."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class FieldError(InputError):
    """An invalid field.

    Attributes:
        param: its name.
    """

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class DeadlineError(FlipfastError):
    """The request took longer than allowed."""


def error_reply(
    code: int, message: str, *, param: str | None = None, retry_after: float | None = None
) -> Reply:
    """Return the reply for an error.

    Args:
        code: HTTP status.
        message: what was wrong, and what to do.
        param: the field concerned.
        retry_after: seconds, rounded up to at least 1.
    """
    usual = "invalid_request_error" if code < 500 else "server_error"
    problem = {"message": message, "type": _TYPES.get(code, usual), "param": param}
    headers = {"WWW-Authenticate": "Bearer"} if code == 401 else {}
    if retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
    return Reply({"error": problem}, code, headers=headers)


def add_error_handlers(app: FastAPI) -> None:
    """Make the application answer all known errors in the same format."""

    @app.exception_handler(QueueFullError)
    async def full(_: Request, error: QueueFullError) -> Reply:
        return error_reply(429, str(error), retry_after=error.retry_after)

    @app.exception_handler(UnavailableError)
    async def unavailable(_: Request, error: UnavailableError) -> Reply:
        return error_reply(503, str(error), retry_after=error.retry_after)

    @app.exception_handler(DeadlineError)
    async def late(_: Request, error: DeadlineError) -> Reply:
        return error_reply(504, str(error))

    @app.exception_handler(FlipfastError)
    async def wrong(_: Request, error: FlipfastError) -> Reply:
        return error_reply(422, str(error), param=getattr(error, "param", None))

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Reply:
        return error_reply(error.status_code, str(error.detail))
