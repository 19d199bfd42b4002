"""Those who watch an output grow, and may end it or write into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Verdict:
    """What becomes of a sampled token.

    Attributes:
        written: tokens that take its place, without being sampled; None keeps it.
        ends: whether the output ends behind them.
        reason: the output's finish_reason then: "stop" as if the model had ended it, "length" where
            it was cut, or "pruned" where nobody needs the rest of it.
    """

    written: list[int] | None = None
    ends: bool = False
    reason: str = "stop"


class Watcher(Protocol):
    """Sees one output, from its start."""

    def start(self) -> list[int]:
        """Tokens that the output begins with, without being sampled; one at least is sampled."""

    def see(self, token: int, n_left: int) -> Verdict | None:
        """Take note of a sampled token, one that ends the output included.

        Args:
            token: sampled behind all that was seen or written before.
            n_left: how many more tokens the output may have behind it.

        Returns:
            None where the token takes its usual course.
        """
