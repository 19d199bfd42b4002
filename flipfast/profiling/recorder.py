"""Times nested stages on host and device, and records the work of each call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch


@dataclass(frozen=True)
class Cost:
    """Work of a call: bytes that must be read or written at least once, and operations."""

    n_bytes: float
    flops: float


# The work of a call; a function if that is known only once the device is done.
LazyCost = Cost | Callable[[], Cost] | None


@dataclass(frozen=True)
class Rates:
    """What the device can do: bytes moved and operations in matrix products, per second."""

    bytes_a_s: float
    flops_a_s: float

    def floor(self, cost: Cost) -> float:
        """Return the minimum time for this work, in seconds."""
        return max(cost.n_bytes / self.bytes_a_s, cost.flops / self.flops_a_s)


@dataclass
class Stage:
    """Totals of a stage.

    Attributes:
        name: of the stage.
        calls: how often it was entered.
        host_s: seconds on the host, without nested stages.
        device_s: seconds on the device from its start to its end, including waiting, without
            nested device stages; None for a host stage, or if the host is the device.
        n_bytes, flops, floor_s: totals of all calls; None if the work is unknown.
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
        """Seconds on the device if it runs there, else on the host."""
        return self.host_s if self.device_s is None else self.device_s

    @property
    def share_of_floor(self) -> float | None:
        """Minimum time for the work divided by the time taken; None if the work is unknown."""
        return None if self.floor_s is None else self.floor_s / max(self.seconds, 1e-12)


class Clock(Protocol):
    """Marks points in the work of a device."""

    def mark(self) -> object:
        """Return a mark for the device's current position in its queue of work."""

    def between(self, first: object, last: object) -> float:
        """Return the seconds from one mark to another."""


class CudaClock:
    """Marks with CUDA events in the current stream."""

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
    """Records the stages of one thread.

    Args:
        clock: of the device; None if the host is the device.
        ranges: whether stages are also named ranges of torch's profiler.
        now: the host's clock, in seconds.
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
        """Whether the innermost open stage is a leaf, which absorbs the calls inside it."""
        return self._top is not None and self._top.leaf

    @contextmanager
    def stage(
        self, name: str, *, on_device: bool = False, leaf: bool = False
    ) -> Iterator[Callable[[LazyCost], None]]:
        """Record a stage; call the yielded function with its work, or None to discard it.

        Args:
            name: of the stage.
            on_device: whether to time it on the device.
            leaf: whether calls inside it are part of it instead of nested stages.
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
        """Return all stages, in the order of their first call's end; the device must be done."""
        stages: dict[str, Stage] = {}
        for call in self._calls:  # a call ends after all calls nested in it
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
