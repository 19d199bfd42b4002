"""An engine that is held between two steps, so that what a test looks at lasts until it has."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.waiting import PATIENCE_S


class Hold:
    """Holds an engine ahead of its next step for which `when` is true; once, until `release`.

    Attributes:
        taken: set when the engine has come that far.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        engine: Any,
        when: Callable[[], object] = lambda: True,
    ) -> None:
        self.taken = threading.Event()
        self._go = threading.Event()
        step = engine.inverter.step

        def held_step() -> Any:
            if when() or self.taken.is_set():
                self.taken.set()
                self._go.wait(PATIENCE_S)
            return step()

        monkeypatch.setattr(engine.inverter, "step", held_step)

    def release(self) -> None:
        """Let it go on, for good."""
        self._go.set()
