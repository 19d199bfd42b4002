"""Whether a peer gives our results, and how fast it is beside us."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from bench.peers.process import Run

# Least share of rows that must agree. In float32 these are whole outputs, of which a tie in the
# last bits may take one or the other; in bfloat16, where ties are common and everything behind one
# differs, the first tokens.
LEAST = {"float32": 0.9, "bfloat16": 0.5}

Outputs = Sequence[Sequence[int]]


def equal_rows(ours: Outputs, theirs: Outputs, dtype: str) -> float:
    """The share of rows with equal outputs, in bfloat16 with equal first tokens.

    Raises:
        AssertionError: it is too small, or rows are missing.
    """
    assert len(ours) == len(theirs), f"{len(theirs)} outputs for {len(ours)} prompts"
    n = None if dtype == "float32" else 1
    equal = [list(a[:n]) == list(b[:n]) for a, b in zip(ours, theirs, strict=True)]
    share = sum(equal) / len(equal)
    if share < LEAST[dtype]:
        at = equal.index(False)
        raise AssertionError(
            f"{share:.0%} of the rows agree, {LEAST[dtype]:.0%} must; the first that does not is "
            f"row {at}: {list(theirs[at][:8])}... where we have {list(ours[at][:8])}..."
        )
    return share


class Interleaved:
    """Runs of ours around each run of a peer.

    Attributes:
        our_runs, their_runs: so far.

    Args:
        ours, theirs: run the same requests.
    """

    def __init__(self, ours: Callable[[], Run], theirs: Callable[[], Run]) -> None:
        self.ours, self.theirs = ours, theirs
        self.our_runs: list[Run] = []
        self.their_runs: list[Run] = []

    def run_ours(self) -> None:
        self.our_runs.append(self.ours())

    def run_theirs(self) -> None:
        self.their_runs.append(self.theirs())

    def speed(self) -> float:
        """How many times as fast as the peer we are: median over its runs.

        Each of them is compared with the mean of our runs before and after it.
        """
        self.run_ours()
        triples = zip(self.their_runs, self.our_runs[:-1], self.our_runs[1:], strict=True)
        return median(2 * run.seconds / (a.seconds + b.seconds) for run, a, b in triples)
