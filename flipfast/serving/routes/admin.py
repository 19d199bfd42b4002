"""Routes that change the engine's state, for the trainer that owns it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, HTTPException, Request

from flipfast.serving.replies import ERRORS, FieldError, Reply
from flipfast.serving.schema import Done, SleepRequest, WeightsRequest
from flipfast.serving.scorer import ServedScorer

ADMIN_PATHS = frozenset({"/sleep", "/wake", "/update_weights"})


def add_admin_routes(app: FastAPI, scorer: ServedScorer) -> None:
    """Add `POST /sleep`, `/wake` and `/update_weights`."""
    shared: dict[str, Any] = {"response_model": Done, "responses": ERRORS, "tags": ["admin"]}

    async def done(change: Coroutine[Any, Any, None]) -> Reply:
        await asyncio.shield(change)  # half a change would be worse than an abandoned one
        return Reply({"state": scorer.status().state})

    @app.post("/sleep", **shared)
    async def sleep(request: Request, body: SleepRequest | None = None) -> Reply:
        """Finish the running rows, then release the engine's memory."""
        _refuse_foreign_page(request)
        return await done(scorer.sleep(drop_weights=body is not None and body.drop_weights))

    @app.post("/wake", **shared)
    async def wake(request: Request) -> Reply:
        """Make the engine usable again after `/sleep`."""
        _refuse_foreign_page(request)
        return await done(scorer.wake())

    @app.post("/update_weights", **shared)
    async def update_weights(request: Request, body: WeightsRequest) -> Reply:
        """Finish the running rows, then load the weights from a local folder."""
        _refuse_foreign_page(request)
        _check_folder(body.folder)
        return await done(scorer.update_weights(body.folder))


def _refuse_foreign_page(request: Request) -> None:
    """Refuse other origins: any web page open on this machine can post here."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise HTTPException(403, f"a page of {origin:.80} must not do this")


def _check_folder(folder: str) -> None:
    try:
        found = any(Path(folder).glob("*.safetensors"))
    except (OSError, ValueError):  # not a valid file name
        found = False
    if not found:
        raise FieldError("folder", f"{folder!r:.200} is no folder with safetensors here")
