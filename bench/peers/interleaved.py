"""Runs of our engine around each run of a peer, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median

from bench.peers.process import Run


class Interleaved:
    """Functions that run the same requests: ours by the names of their settings, and a peer's.

    Call `run_ours` and `run_theirs` in turns, `run_ours` first and last.
    """

    def __init__(self, ours: Mapping[str, Callable[[], Run]], theirs: Callable[[], Run]) -> None:
        self.ours, self.theirs = ours, theirs
        self.our_runs: dict[str, list[Run]] = {name: [] for name in ours}
        self.their_runs: list[Run] = []

    def run_ours(self) -> None:
        """All of ours, each time in the other order, so that each is as near to a peer's run."""
        names = list(self.ours)[:: -1 if len(self.their_runs) % 2 else 1]
        for name in names:
            self.our_runs[name].append(self.ours[name]())

    def run_theirs(self) -> None:
        self.their_runs.append(self.theirs())

    def speed(self, name: str) -> float:
        """How many times as fast as the peer one of ours is: the median of the peer's runs over
        the mean of ours before and after.
        """
        ours = self.our_runs[name]
        triples = zip(self.their_runs, ours[:-1], ours[1:], strict=True)
        return median(2 * run.seconds / (a.seconds + b.seconds) for run, a, b in triples)


def rates(runs: list[Run]) -> dict[str, float]:
    """Of the runs' median, and the memory that the process has had at most."""
    seconds = median(run.seconds for run in runs)
    found = {"rewards_per_s": len(runs[0].outputs) / seconds}
    found |= {"tokens_per_s": runs[0].n_tokens / seconds} if runs[0].n_tokens else {}
    return {**found, "peak_memory_mib": runs[-1].peak_memory_mib}
