"""The interface of watchers, which see an output grow and may end it or write into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Verdict:
    """A watcher's decision about a sampled token.

    Attributes:
        written: tokens that replace it, unsampled; None keeps it.
        ends: whether the output ends after them.
        reason: the finish_reason if it ends: "stop" as if the model had ended it, "length" if it
            was cut, or "pruned" if the rest is not needed.
    """

    written: list[int] | None = None
    ends: bool = False
    reason: str = "stop"


class Watcher(Protocol):
    """Watches one output from its start."""

    def start(self) -> list[int]:
        """Return the unsampled tokens that begin the output; at least one sampled token follows."""

    def see(self, token: int, n_left: int) -> Verdict | None:
        """Handle a sampled token, including one that ends the output.

        Args:
            token: sampled after all that was seen or written before.
            n_left: how many more tokens the output may have after it.

        Returns:
            None to treat the token as usual.
        """
