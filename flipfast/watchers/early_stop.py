"""Ends an output where its instruction is closed."""

from __future__ import annotations

from collections.abc import Sequence

from flipfast._core import ObjectScanner
from flipfast.watchers.base import Verdict


class EarlyStop:
    """A watcher that ends an output with the token that closes its instruction for good.

    `parse_robust` gives the same for the output so far and for whatever the model would have made
    of it, so that no reward changes. An output that does not begin with a clean JSON object, or
    with a token whose bytes are not known, runs on. The published parser reads the whole output,
    and a plain one has no end to be seen: neither goes with this.

    Args:
        token_bytes: what each token adds to the text, None where that is not known.
    """

    def __init__(self, token_bytes: Sequence[bytes | None]) -> None:
        self._token_bytes = token_bytes
        self._scanner: ObjectScanner | None = ObjectScanner()

    def start(self) -> list[int]:
        """Nothing is written."""
        return []

    def see(self, token: int, n_left: int) -> Verdict | None:
        """End the output if this token closes the instruction."""
        if self._scanner is None:
            return None
        data = self._token_bytes[token]
        if data is not None:
            self._scanner.feed(data)
        if data is None or self._scanner.dead:
            self._scanner = None
        elif self._scanner.closed:
            return Verdict(ends=True)
        return None
