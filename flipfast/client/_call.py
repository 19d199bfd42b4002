"""One call to a server: its requests, their attempts, and the deadline for all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from flipfast.client._protocol import (
    PATH,
    TooLargeError,
    error_of,
    read_rows,
    request_body,
    split,
)
from flipfast.client._retry import Patience, Retry
from flipfast.client._transport import Transport
from flipfast.errors import QueueFullError, UnavailableError
from flipfast.scores import ScoredRow, failed_row
from flipfast.scoring.async_scoring import drop

_MAX_REQUESTS = 8  # concurrent ones per call


class Call:
    """Sends encoded items and returns their rows.

    Args:
        transport: to the server.
        seconds: until the deadline.
        patience: how to retry when the server cannot answer now.
        headers: sent with each request.
    """

    def __init__(
        self, transport: Transport, seconds: float, patience: Patience, headers: Mapping[str, str]
    ) -> None:
        self._transport = transport
        self._seconds = seconds
        self._patience = patience
        self._headers = headers
        self._end = time.monotonic() + seconds

    async def rows(self, items: Sequence[str]) -> list[ScoredRow]:
        """Return the rows of all items, in order; the first failing request cancels the others."""
        slots = asyncio.Semaphore(_MAX_REQUESTS)

        async def in_turn(places: range) -> list[ScoredRow]:
            async with slots:
                return await self._request(items[places.start : places.stop])

        tasks = [asyncio.create_task(in_turn(places)) for places in split(items)]
        try:
            parts = await asyncio.gather(*tasks)
        finally:
            await drop(tasks)
        return [row for part in parts for row in part]

    async def _request(self, items: Sequence[str]) -> list[ScoredRow]:
        """Return the rows of one request, split in halves if it is too large for the server."""
        try:
            return read_rows(await self._answer(items), len(items))
        except asyncio.TimeoutError:
            return [failed_row(f"not done within {self._seconds:g} s") for _ in items]
        except TooLargeError as error:
            if len(items) == 1:
                return [failed_row(error)]
            middle = len(items) // 2
            return [*await self._request(items[:middle]), *await self._request(items[middle:])]

    async def _answer(self, items: Sequence[str]) -> bytes:
        retry = Retry(self._end, self._patience)
        while True:
            try:
                return await self._attempt(items, retry.left)
            except (QueueFullError, UnavailableError) as error:
                await asyncio.sleep(retry.delay(error))

    async def _attempt(self, items: Sequence[str], seconds: float) -> bytes:
        body = request_body(items, seconds)
        answer = await self._transport.post(PATH, body, self._headers, seconds)
        if answer.status != 200:
            raise error_of(answer.status, answer.headers, answer.body)
        return answer.body
