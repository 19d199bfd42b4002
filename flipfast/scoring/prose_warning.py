"""Warns of a model that does not answer with the object that its prompt asks for."""

from __future__ import annotations

import logging
from collections.abc import Sequence

_log = logging.getLogger(__name__)


class ProseWarning:
    """Logs once where more than half of a batch has the status "prose".

    Args:
        model: its name, for the message.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._warned = False

    def check(self, statuses: Sequence[str]) -> None:
        """Look at the statuses of a batch."""
        n_prose = sum(status.startswith("prose") for status in statuses)
        if 2 * n_prose > len(statuses) and not self._warned:
            self._warned = True
            _log.warning(
                "%d of %d outputs of %s hold no JSON object, and are scored as they are: it does "
                "not follow this prompt. Use style='direct', or the model 'small'",
                n_prose,
                len(statuses),
                self._model,
            )
