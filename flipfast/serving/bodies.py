"""Parses the body of a request into the model that its route declares."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any, get_type_hints

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError

from flipfast.checks import brief
from flipfast.errors import InputError
from flipfast.serving.replies import FieldError

_LONGEST_NAME = 100  # characters; a name may come from the body


class BodyRoute(APIRoute):
    """A route whose endpoint takes (request, body), or no parameters.

    FastAPI still documents it from its annotations, but FastAPI's own request handling, which
    supports many more kinds of parameters, takes twice as long.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that handles a request."""
        endpoint, kind = self.endpoint, get_type_hints(self.endpoint).get("body")
        if kind is None:
            return super().get_route_handler()
        adapter = TypeAdapter(kind)

        async def handle(request: Request) -> Response:
            body = _parsed(request.headers.get("content-type", ""), await request.body())
            reply: Response = await endpoint(request, _checked(adapter, body))
            return reply

        return handle


def _parsed(content_type: str, body: bytes) -> Any:
    if not body:
        return None
    # A web page may post anything to any address, but JSON only where the server allows it (CORS).
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "application/json":
        raise InputError(f"send JSON with Content-Type: application/json, not {brief(kind)}")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is no JSON that can be read: {error!s:.80}") from None


def _checked(adapter: TypeAdapter[Any], body: Any) -> Any:
    try:
        return adapter.validate_python(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    param = ".".join(str(part) for part in first["loc"])[:_LONGEST_NAME]
    if not param:
        got = "nothing" if body is None else brief(body)
        raise InputError(f"the body must be a JSON object, got {got}")
    # For a missing field, the input is the object that it is missing from.
    got = "" if first["type"] == "missing" else f", got {brief(first['input'])}"
    raise FieldError(param, f"{param}: {first['msg']}{got}")
