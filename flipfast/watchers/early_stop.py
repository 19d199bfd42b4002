"""Ends an output once its instruction is closed."""

from __future__ import annotations

from collections.abc import Sequence

from flipfast._core import ObjectScanner
from flipfast.watchers.base import Verdict


class EarlyStop:
    """A watcher that ends an output with the token that closes its instruction for good.

    `parse_robust` gives the same result for the output so far as for any continuation, so no reward
    changes. An output runs on if it does not begin with a clean JSON object, or once it has a token
    with unknown bytes. This does not work with the published parser, which reads the whole output,
    nor with plain outputs, which have no visible end.

    Args:
        token_bytes: the bytes that each token adds to the text, None if unknown.
    """

    def __init__(self, token_bytes: Sequence[bytes | None]) -> None:
        self._token_bytes = token_bytes
        self._scanner: ObjectScanner | None = ObjectScanner()

    def start(self) -> list[int]:
        """Return no tokens: this watcher writes nothing."""
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
