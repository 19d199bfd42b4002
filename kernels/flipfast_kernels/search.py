"""Autotuning: measure launch configurations on the current device; `tuning` stores the results."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

# Returns the seconds that a call takes on the device.
Timer = Callable[[Callable[[], object]], float]
Pair = tuple[Any, Any]  # configurations for few rows and for many


@dataclass(frozen=True)
class Workload:
    """One call to measure.

    Attributes:
        name: describes its size.
        pick: takes from a pair the configuration that a call of this size uses.
        run: makes the call with a given configuration.
        expected: its result in float64.
        tolerance: largest allowed difference, relative to the largest expected number.
    """

    name: str
    pick: Callable[[Pair], Any]
    run: Callable[[Any], torch.Tensor]
    expected: torch.Tensor
    tolerance: float


@dataclass(frozen=True)
class Problem:
    """A kernel shape and its candidate configurations.

    Attributes:
        kernel: its name in a tuning file.
        bucket: of the shape; see `tuning`.
        pairs: the candidates, the default first; both of a pair give a row the same bits.
        make: makes the workloads; called only when needed, as they take memory.
    """

    kernel: str
    bucket: dict[str, int | str]
    pairs: Sequence[Pair]
    make: Callable[[], Sequence[Workload]]


@dataclass(frozen=True)
class Result:
    """The measurements of a problem.

    Attributes:
        problem: the problem that was measured.
        pair: the best pair.
        usual, best: microseconds by workload name, with the default pair and with the best.
        n_measured: number of pairs that were timed.
        refused: pairs that did not run, were wrong, or did not give a row the same bits; and why.
    """

    problem: Problem
    pair: Pair
    usual: dict[str, float]
    best: dict[str, float]
    n_measured: int
    refused: dict[Pair, str]

    def entry(self) -> dict[str, Any]:
        """The entry for a tuning file."""
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
    """Measure every problem, and within it as many pairs as time allows.

    A problem may take a quarter of the remaining time, as the first ones compile the kernels for
    all; a problem not reached in time has no result. The best pair has the smallest product of
    times over all workloads, so that each has equal weight.

    Args:
        problems: in order of importance.
        timer: measures a call, such as `cuda_timer`'s.
        seconds: time budget for all problems.
        clock: returns the current time in seconds.
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
    """Find the best pair; the default pair is measured even if time is up.

    Raises:
        RuntimeError: the default pair does not run or is wrong.
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


def cuda_timer(device: torch.device, *, repeats: int = 15, flushed: int = 1 << 30) -> Timer:
    """A timer that returns the median over CUDA events, flushing the L2 cache before every call.

    Args:
        device: where calls run.
        repeats: of each call.
        flushed: bytes written before each; the usual number is many times the size of any L2
            cache, and takes a quarter of a millisecond on an H200.
    """
    scratch = torch.empty(flushed, dtype=torch.int8, device=device)

    def timer(call: Callable[[], object]) -> float:
        call()
        spans = []
        for _ in range(repeats):
            # Writing this lets the host get ahead, even if it checks arguments for tens of
            # microseconds, so that launch time is not measured.
            scratch.zero_()
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
            config = work.pick(pair)
            result = work.run(config)
            same = few == many or torch.equal(result, work.run(few if config == many else many))
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
    """Microseconds of each workload; a configuration in several pairs is timed once."""
    found = {}
    for work in workloads:
        config = work.pick(pair)
        if (work.name, config) not in known:
            known[work.name, config] = 1e6 * timer(lambda w=work, c=config: w.run(c))  # type: ignore[misc]
        found[work.name] = known[work.name, config]
    return found
