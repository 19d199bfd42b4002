"""Times nested stages on the host and on the device, and keeps the work that each call did."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch


@dataclass(frozen=True)
class Cost:
    """Work of a call: bytes that must be read or written at least once, operations on numbers."""

    n_bytes: float
    flops: float


# What a call did; a call of its own where that is known only when the device is done.
LazyCost = Cost | Callable[[], Cost] | None


@dataclass(frozen=True)
class Rates:
    """What the device can do: bytes moved and operations in products, a second."""

    bytes_a_s: float
    flops_a_s: float

    def floor(self, cost: Cost) -> float:
        """The least seconds for such work."""
        return max(cost.n_bytes / self.bytes_a_s, cost.flops / self.flops_a_s)


@dataclass
class Stage:
    """Totals of a stage.

    Attributes:
        name: of it.
        calls: how often it was entered.
        host_s: seconds on the host, without the stages inside it.
        device_s: seconds on the device between its start and its end, waiting included, without the
            device stages inside it; None for a stage of the host, or where both are one.
        n_bytes, flops, floor_s: of all calls; None where the work is not known.
    """

    name: str
    calls: int = 0
    host_s: float = 0.0
    device_s: float | None = None
    n_bytes: float | None = None
    flops: float | None = None
    floor_s: float | None = None

    @property
    def seconds(self) -> float:
        """On the device where it works there, else on the host."""
        return self.host_s if self.device_s is None else self.device_s

    @property
    def share_of_floor(self) -> float | None:
        """The least time for the work over the time it took; None where the work is not known."""
        return None if self.floor_s is None else self.floor_s / max(self.seconds, 1e-12)


class Clock(Protocol):
    """Marks points in the work of a device."""

    def mark(self) -> object:
        """The point that the device has reached when it comes to this call."""

    def between(self, first: object, last: object) -> float:
        """Seconds from one mark to another."""


class CudaClock:
    """Events in the current stream."""

    def mark(self) -> object:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, first: object, last: object) -> float:
        assert isinstance(first, torch.cuda.Event)
        assert isinstance(last, torch.cuda.Event)
        last.synchronize()
        return float(first.elapsed_time(last)) * 1e-3


@dataclass
class _Call:
    name: str
    parent: _Call | None
    device_parent: _Call | None
    leaf: bool
    host_s: float = 0.0
    marks: tuple[object, object] | None = None
    cost: LazyCost = None
    kept: bool = True
    host_inside: float = field(default=0.0)
    device_inside: float = field(default=0.0)


class Recorder:
    """Collects the calls of one thread.

    Args:
        clock: of the device; None where it is the host.
        ranges: whether the stages are named ranges of torch's profiler too.
        now: seconds of the host.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        ranges: bool = False,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._clock = clock
        self._ranges = ranges
        self._now = now
        self._calls: list[_Call] = []
        self._top: _Call | None = None

    @property
    def in_leaf(self) -> bool:
        """Whether the innermost open stage takes its own parts for itself."""
        return self._top is not None and self._top.leaf

    @contextmanager
    def stage(
        self, name: str, *, on_device: bool = False, leaf: bool = False
    ) -> Iterator[Callable[[LazyCost], None]]:
        """A stage; call what it gives with the work done, or with None if nothing was done.

        Args:
            name: of the stage.
            on_device: whether its time is the device's.
            leaf: whether calls inside it are none of their own.
        """
        parent = self._top
        device_parent = parent
        while device_parent is not None and device_parent.marks is None:
            device_parent = device_parent.parent
        call = _Call(name, parent, device_parent, leaf)
        timed = self._clock if on_device else None
        if timed is not None:
            start = timed.mark()
            call.marks = (start, start)
        self._top = call

        def note(cost: LazyCost) -> None:
            call.cost, call.kept = cost, cost is not None

        begin = self._now()
        try:
            with torch.profiler.record_function(name) if self._ranges else nullcontext():
                yield note
        finally:
            call.host_s = self._now() - begin
            if timed is not None:
                call.marks = (start, timed.mark())
            self._top = parent
            self._calls.append(call)

    def totals(self, rates: Rates) -> list[Stage]:
        """All stages, in the order of their first call's end; the device must be done."""
        stages: dict[str, Stage] = {}
        for call in self._calls:  # a call ends after all that is inside it
            device_s = None
            if call.marks is not None and self._clock is not None:
                device_s = self._clock.between(*call.marks)
            if call.parent is not None:
                call.parent.host_inside += call.host_s
            if call.device_parent is not None and device_s is not None:
                call.device_parent.device_inside += device_s
            if call.kept:
                _add(stages.setdefault(call.name, Stage(call.name)), call, device_s, rates)
        return list(stages.values())


def _add(stage: Stage, call: _Call, device_s: float | None, rates: Rates) -> None:
    stage.calls += 1
    stage.host_s += call.host_s - call.host_inside
    if device_s is not None:
        stage.device_s = (stage.device_s or 0.0) + device_s - call.device_inside
    cost = call.cost() if callable(call.cost) else call.cost
    if cost is not None:
        stage.n_bytes = (stage.n_bytes or 0.0) + cost.n_bytes
        stage.flops = (stage.flops or 0.0) + cost.flops
        stage.floor_s = (stage.floor_s or 0.0) + rates.floor(cost)
