"""Logs as one JSON object per line, without prompts and responses unless asked for."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import Any, TextIO


class JsonFormatter(logging.Formatter):
    """Formats UTC time, level, logger, message, and the entries of the record's `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure_logging(stream: TextIO | None = None) -> None:
    """Log everything from level "info" up to a stream; None means standard error."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def log_failure(
    log: logging.Logger, message: str, error: BaseException, *, with_message: bool
) -> None:
    """Log where an unexpected error was raised.

    Args:
        log: the logger.
        message: what failed.
        error: the error.
        with_message: whether to log the error's own message, which may quote texts.
    """
    shown = "".join(traceback.format_tb(error.__traceback__))
    fields = {"error": type(error).__name__, "traceback": shown}
    if with_message:
        fields["error_message"] = str(error)
    log.error(message, extra={"fields": fields})
