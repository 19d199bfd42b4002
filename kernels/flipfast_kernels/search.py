"""Measuring launch configurations on the device at hand; see `tuning` for what comes of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

# Seconds that a call takes on the device.
Timer = Callable[[Callable[[], object]], float]
Pair = tuple[Any, Any]  # configurations for few rows and for many


@dataclass(frozen=True)
class Workload:
    """One call to measure.

    Attributes:
        name: says how large it is.
        few: whether the configuration for few rows is the one that serves it.
        run: the call, with a configuration.
        expected: its result in float64.
        tolerance: of the largest difference, as a share of the largest expected number.
    """

    name: str
    few: bool
    run: Callable[[Any], torch.Tensor]
    expected: torch.Tensor
    tolerance: float


@dataclass(frozen=True)
class Problem:
    """A shape of a kernel, and what there is to choose from.

    Attributes:
        kernel: name in the file.
        bucket: of the shape.
        pairs: to choose from, the usual choice first; both of a pair give a row the same bits.
        make: the workloads; called when their turn comes, as they take memory.
    """

    kernel: str
    bucket: dict[str, int | str]
    pairs: Sequence[Pair]
    make: Callable[[], Sequence[Workload]]


@dataclass(frozen=True)
class Result:
    """What was found for a problem.

    Attributes:
        problem: that was measured.
        pair: the best.
        usual, best: microseconds of each workload with the usual pair and with the best, by name.
        n_measured: pairs that could be compared.
        refused: pairs that did not run, were wrong, or gave a row two kinds of bits; and why.
    """

    problem: Problem
    pair: Pair
    usual: dict[str, float]
    best: dict[str, float]
    n_measured: int
    refused: dict[Pair, str]

    def entry(self) -> dict[str, Any]:
        """As it stands in a tuning file."""
        few, many = self.pair
        return {
            "bucket": self.problem.bucket,
            "few": asdict(few),
            "many": asdict(many),
            "microseconds": {name: round(value, 3) for name, value in self.best.items()},
            "microseconds_before": {name: round(value, 3) for name, value in self.usual.items()},
        }


def search(
    problems: Sequence[Problem],
    timer: Timer,
    *,
    seconds: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Result]:
    """Measure every problem, and within it every pair as far as the time allows.

    A problem may take a quarter of the time that is left, as the first ones build the kernels for
    all; a problem whose turn does not come has no result. The best pair has the smallest product of
    times over all workloads, so that each counts alike.

    Args:
        problems: in order of importance.
        timer: measures a call; `cuda_timer`.
        seconds: for all of them.
        clock: seconds of some clock.
    """
    end = clock() + seconds
    for problem in problems:
        now = clock()
        if now >= end:
            return
        yield measure(problem, timer, until=now + (end - now) / 4, clock=clock)


def measure(
    problem: Problem, timer: Timer, *, until: float, clock: Callable[[], float] = time.monotonic
) -> Result:
    """Find the best pair; the usual one is measured whatever the time.

    Raises:
        RuntimeError: the usual pair does not run or is wrong.
    """
    workloads = problem.make()
    known: dict[tuple[str, Any], float] = {}
    refused: dict[Pair, str] = {}
    times: dict[Pair, dict[str, float]] = {}
    for pair in problem.pairs:
        if times and clock() >= until:
            break
        reason = _wrong(workloads, pair)
        if reason is None:
            times[pair] = _times(workloads, pair, timer, known)
        elif not times:
            raise RuntimeError(f"{problem.kernel} {problem.bucket} with {pair}: {reason}")
        else:
            refused[pair] = reason
    best = min(times, key=lambda pair: math.prod(times[pair].values()))
    usual = times[problem.pairs[0]]
    return Result(problem, best, usual, times[best], len(times), refused)


def cuda_timer(device: torch.device, *, repeats: int = 15) -> Timer:
    """Median over CUDA events, the L2 cache overwritten before every call."""
    # Many times any L2 cache, and on an H200 a quarter of a millisecond: see below.
    flushed = torch.empty(1 << 30, dtype=torch.int8, device=device)

    def timer(call: Callable[[], object]) -> float:
        call()
        spans = []
        for _ in range(repeats):
            # While this is written the host gets ahead, also where it checks arguments for tens of
            # microseconds: what is timed is not its launching.
            flushed.zero_()
            events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            events[0].record()
            call()
            events[1].record()
            spans.append(events)
        torch.cuda.synchronize(device)
        milliseconds = sorted(float(first.elapsed_time(last)) for first, last in spans)
        return milliseconds[repeats // 2] * 1e-3

    return timer


def _wrong(workloads: Sequence[Workload], pair: Pair) -> str | None:
    """Why a pair cannot be used; None if it can."""
    few, many = pair
    for work in workloads:
        try:
            result = work.run(few if work.few else many)
            same = few == many or torch.equal(result, work.run(many if work.few else few))
        except Exception as error:  # too much shared memory, too many registers
            return f"{type(error).__name__}: {error}".splitlines()[0]
        off = float((result.double() - work.expected).abs().max() / work.expected.abs().max())
        if not off <= work.tolerance:
            return f"{work.name} is off by {off:.2g} of its largest number"
        if not same:
            return f"{work.name} has other bits with the other of the pair"
    return None


def _times(
    workloads: Sequence[Workload], pair: Pair, timer: Timer, known: dict[tuple[str, Any], float]
) -> dict[str, float]:
    """Microseconds of each workload; a configuration that is in several pairs is timed once."""
    found = {}
    for work in workloads:
        config = pair[0] if work.few else pair[1]
        if (work.name, config) not in known:
            known[work.name, config] = 1e6 * timer(lambda w=work, c=config: w.run(c))  # type: ignore[misc]
        found[work.name] = known[work.name, config]
    return found
