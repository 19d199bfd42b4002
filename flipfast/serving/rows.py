"""Scores the rows of a request: submits them one by one and answers them together."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import Any

from flipfast.checks import brief, field_found
from flipfast.errors import FlipfastError, InputError, QueueFullError, UnavailableError
from flipfast.scores import ScoredRow, failed_row
from flipfast.serving.logs import log_failure
from flipfast.serving.metrics import Metrics
from flipfast.serving.observing import RequestRecord
from flipfast.serving.options import ServerOptions
from flipfast.serving.replies import DeadlineError, FieldError
from flipfast.serving.scorer import ServedScorer

_log = logging.getLogger(__name__)
_TEXT_FIELDS = {"instruction", "response", "context"}
_CHAT_FIELDS = {"prompt", "completion"}
_FIELDS = "an item has instruction, response and maybe context, or prompt and completion"


class RowScorer:
    """Scores the items of requests one by one, so that the engine takes each when it has room.

    Args:
        scorer: what scores them.
        options: limits.
        metrics: where rows are counted.
    """

    def __init__(self, scorer: ServedScorer, options: ServerOptions, metrics: Metrics) -> None:
        self._scorer = scorer
        self._options = options
        self._metrics = metrics

    async def score(
        self,
        record: RequestRecord,
        field: str,
        items: Sequence[Any],
        timeout: float | None = None,
    ) -> list[ScoredRow]:
        """Score items; those that are not done in time become errors.

        Args:
            record: of the request that they belong to.
            field: their field name in the request.
            items: see schema.TextItem and schema.ChatItem. An invalid item, or an InputError in
                an item's place, becomes an error row.
            timeout: seconds; the server's own limit applies too.

        Raises:
            FieldError: there are more items than the queue can ever hold.
            QueueFullError, UnavailableError: the request must be sent again.
        """
        seconds = min(timeout or math.inf, self._options.timeout)
        done = await self._run(record, field, items, seconds)
        late = failed_row(f"not done within {seconds:g} s", self._options.on_failure)
        rows = [late if row is None else row for row in done]
        self._metrics.count_rows(record.route, rows)
        return rows

    async def score_all(
        self, record: RequestRecord, field: str, items: Sequence[Any]
    ) -> list[ScoredRow]:
        """Score like `score`, for callers that cannot tell a late row from a bad one.

        Raises:
            DeadlineError: a row was not done in time.
        """
        done = await self._run(record, field, items, self._options.timeout)
        rows = [row for row in done if row is not None]
        if len(rows) < len(done):
            raise DeadlineError(f"not done within {self._options.timeout:g} s: ask for less")
        self._metrics.count_rows(record.route, rows)
        return rows

    async def _run(
        self, record: RequestRecord, field: str, items: Sequence[Any], seconds: float
    ) -> list[ScoredRow | None]:
        """Return the rows, with None for those that are not done within `seconds`."""
        record.rows = len(items)
        if self._options.log_texts:
            record.texts = items
        self._check_room(field, len(items))
        tasks = [asyncio.ensure_future(self._row(item, record.caller)) for item in items]
        try:
            if tasks:
                first = asyncio.FIRST_EXCEPTION
                await asyncio.wait(tasks, timeout=seconds, return_when=first)
            return [task.result() if task.done() else None for task in tasks]
        finally:
            await _drop(tasks)

    def _check_room(self, field: str, n: int) -> None:
        most = self._options.max_queue
        if n > most:
            raise FieldError(field, f"{n} rows are more than the {most} that may wait: split them")
        if n and self._scorer.status().queued + n > most:
            raise QueueFullError(f"{n} rows more do not fit the queue of {most}: try again")

    async def _row(self, item: Any, caller: str) -> ScoredRow:
        try:
            return _finite(await self._scored(item, caller))
        except (QueueFullError, UnavailableError):
            raise
        except FlipfastError as error:
            return failed_row(error, self._options.on_failure)
        except Exception as error:  # the request's other rows are unaffected
            log_failure(_log, "a row failed", error, with_message=self._options.log_texts)
            return failed_row("the server failed on this row", self._options.on_failure)

    async def _scored(self, item: Any, caller: str) -> ScoredRow:
        _check_item(item)
        if "prompt" in item:
            chat = item["prompt"], item.get("completion")
            return await self._scorer.score_chat(*chat, caller=caller)
        texts = item["instruction"], item["response"], item.get("context")
        return await self._scorer.score_row(*texts, caller=caller)


def _check_item(item: Any) -> None:
    """Check that an item has the fields of one of the two kinds; the scorer checks the values."""
    if isinstance(item, InputError):
        raise item
    if not isinstance(item, dict):
        raise InputError(f"an item must be an object, got {brief(item)}: {_FIELDS}")
    chat = "prompt" in item
    for name in ("prompt",) if chat else ("instruction", "response"):
        if name not in item:
            raise InputError(f"{field_found(item, name)}: {_FIELDS}")
    kind, known = ("prompt", _CHAT_FIELDS) if chat else ("instruction", _TEXT_FIELDS)
    for name in item:
        if name not in known:
            raise InputError(f"unknown field {brief(name)} beside {kind}: {_FIELDS}")


def _finite(row: ScoredRow) -> ScoredRow:
    """Return the row, with None and an error in place of numbers that JSON cannot represent."""
    odd = [name for name, v in row.items() if isinstance(v, float) and not math.isfinite(v)]
    if not odd:
        return row
    error = f"the {odd[0]} is {row[odd[0]]}, which JSON cannot hold"
    return {**row, **dict.fromkeys(odd), "status": "error", "error": error}


async def _drop(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel unfinished tasks and retrieve the outcome of all."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
