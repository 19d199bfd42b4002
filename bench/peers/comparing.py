"""Whether a peer gives our results, and how fast it is beside us: results first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from bench.peers.process import OURS, Run

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
    """Runs of ours around each run of a peer: functions that run the same requests."""

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


def measure(benchmark: Any, name: str, pair: Interleaved, dtype: str, rounds: int) -> None:
    """Compare results, which warms both up, then time the peer between runs of ours.

    Raises:
        AssertionError: the results differ.
    """
    equal = equal_rows(pair.ours().outputs, pair.theirs().outputs, dtype)
    benchmark.pedantic(pair.run_theirs, setup=pair.run_ours, rounds=rounds)
    speed = pair.speed()
    ours = {f"{OURS}_{key}": value for key, value in rates(pair.our_runs).items()}
    benchmark.extra_info.update(
        **rates(pair.their_runs),
        **ours,
        peer=name,
        equal_rows=equal,
        **{f"speed_over_{name}": speed},
    )


def rates(runs: list[Run]) -> dict[str, float]:
    """Of the runs' median, and the memory that the process has had at most."""
    seconds = median(run.seconds for run in runs)
    found = {"rewards_per_s": len(runs[0].outputs) / seconds}
    found |= {"tokens_per_s": runs[0].n_tokens / seconds}
    found |= {"peak_memory_mib": runs[-1].peak_memory_mib}
    return {name: value for name, value in found.items() if value}
