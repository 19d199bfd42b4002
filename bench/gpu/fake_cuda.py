"""CUDA devices that are none: torch keeps their tensors on the CPU, and no kernel runs.

What torch.cuda says about devices, streams, events and graphs is kept as books, per thread as CUDA
does, so that a test can ask where and in which order kernels were launched. New tensors are zeros,
so that what no kernel has written can be read; no result means anything.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

HERE = torch.device("cuda", 0)
MEMORY = 10**10  # bytes that are said to be free
_AS_IS = (torch.Tensor.pin_memory, torch.Tensor.cuda)
_PRODUCTS = (torch.mm, torch.addmm)
_LARGE = 2**20  # bytes

Clock = dict[int, int]  # by stream, how many of its launches have ended


class Launch(NamedTuple):
    """A kernel's launch."""

    device: int  # the thread's current one
    stream: int
    number: int  # in its stream, from 1
    before: Clock  # the launches that it surely follows

    def follows(self, other: Launch) -> bool:
        """Whether the other one has ended when this one begins."""
        return self.before.get(other.stream, 0) >= other.number


class FakeCuda:
    """The books of some devices.

    Args:
        n_devices: how many there are.
        capability: the compute capability of each, 90 for 9.0.

    Attributes:
        launches: so far, in the host's order.
        captures: the streams and error modes of graphs that were recorded.
        handed_over: tensors that a stream other than their own has been noted for.
        n_started: how often the host has started something: a kernel, or a graph of kernels.
        n_to_device, n_to_host: copies by way of pinned memory, and those that the host waits for.
    """

    def __init__(self, n_devices: int = 1, capability: int = 90) -> None:
        self.launches: list[Launch] = []
        self.captures: list[tuple[int, str]] = []
        self.handed_over: list[torch.Tensor] = []
        self.n_started = self.n_to_device = self.n_to_host = 0
        self._pinned = WeakIdKeyDictionary()
        self._n_devices = n_devices
        self._capability = divmod(capability, 10)
        self._threads = threading.local()
        self._streams: list[_Stream] = []
        self._names = self._all_names()
        self._defaults = [self._names["Stream"](device) for device in range(n_devices)]
        self._pools: dict[int, _Pool] = {}
        self._handles = itertools.count(1)
        self._known: Clock = {}  # to the host
        self._capturing: _Pool | None = None

    def mode(self) -> TorchFunctionMode:
        """Keeps tensors on the CPU and says that they are on CUDA; for the thread that enters."""
        return _OnHost(self)

    def launch(self, *_: Any, **__: Any) -> None:
        """What takes the place of a kernel's launch."""
        self.n_started += self._capturing is None
        self.run_kernel()

    def run_kernel(self) -> None:
        """Note a kernel, launched or part of a graph."""
        stream = self._stream()
        before = _later(stream.clock, self._known)
        number = before[stream.key] = before.get(stream.key, 0) + 1
        stream.clock = before
        earlier = {**before, stream.key: number - 1}
        self.launches.append(Launch(self._device(), stream.key, number, earlier))

    def names(self) -> dict[str, Any]:
        """What takes the place of torch.cuda's names that flipfast and its libraries use."""
        return self._names

    def record_stream(self) -> Callable[[torch.Tensor, _Stream], None]:
        """What takes the place of torch.Tensor.record_stream."""
        return lambda tensor, _: self.handed_over.append(tensor)

    def _all_names(self) -> dict[str, Any]:
        major, minor = self._capability
        properties = SimpleNamespace(
            name="rehearsal",
            major=major,
            minor=minor,
            multi_processor_count=132,
            total_memory=MEMORY,
        )
        values = {
            "is_available": True,
            "is_initialized": True,
            "device_count": self._n_devices,
            "get_device_name": properties.name,
            "get_device_properties": properties,
            "get_device_capability": self._capability,
            "mem_get_info": (MEMORY, MEMORY),
            "memory_allocated": 0,
            "max_memory_reserved": 0,
            "reset_peak_memory_stats": None,
            "synchronize": None,
            "manual_seed_all": None,
        }
        # A function for each, as torch keeps rules by function.
        calls = {name: _always(value) for name, value in values.items()}
        return {
            **calls,
            "current_device": self._device,
            "set_device": self._set_device,
            "device": self._on_device,
            "Stream": type("Stream", (_Stream,), {"fake": self}),
            "Event": type("Event", (_Event,), {"fake": self}),
            "current_stream": lambda device=None: self._stream(self._index(device)),
            "default_stream": lambda device=None: self._defaults[self._index(device)],
            "stream": self._on_stream,
            "CUDAGraph": _Graph,
            "graph": self._capture,
            "graph_pool_handle": self._new_pool,
            "empty_cache": self._empty_cache,
        }

    def _device(self) -> int:
        return getattr(self._threads, "device", 0)

    def _set_device(self, device: Any) -> None:
        self._threads.device = self._index(device)

    def _index(self, device: Any) -> int:
        index = device if device is None or isinstance(device, int) else torch.device(device).index
        return self._device() if index is None else index

    @contextlib.contextmanager
    def _on_device(self, device: Any) -> Iterator[None]:
        before = self._device()
        self._set_device(device)
        try:
            yield
        finally:
            self._threads.device = before

    def _stream(self, device: int | None = None) -> _Stream:
        device = self._device() if device is None else device
        current: dict[int, _Stream] = self._threads.__dict__.setdefault("streams", {})
        return current.get(device, self._defaults[device])

    @contextlib.contextmanager
    def _on_stream(self, stream: _Stream) -> Iterator[None]:
        before = self._stream(stream.device)
        with self._on_device(stream.device):
            self._threads.streams[stream.device] = stream
            try:
                yield
            finally:
                self._threads.streams[stream.device] = before

    def _new_pool(self) -> int:
        return next(self._handles)

    @contextlib.contextmanager
    def _capture(
        self,
        graph: _Graph,
        pool: int | None = None,
        stream: _Stream | None = None,
        capture_error_mode: str = "global",
    ) -> Iterator[None]:
        """With the assertions of torch's allocator."""
        handle = self._new_pool() if pool is None else pool
        found = self._pools.setdefault(handle, _Pool())
        if found.was_used and not found.n_graphs:
            raise AssertionError("a capture into a pool whose graphs have all gone")
        self._empty_cache()
        self._pools[handle] = found
        found.was_used = True
        found.n_graphs += 1
        graph.fake, graph.pool = self, found
        stream = stream or self._defaults[self._device()]
        self.captures.append((stream.key, capture_error_mode))
        self._capturing = found
        n = len(self.launches)
        try:
            with self._on_stream(stream):
                yield
        finally:
            self._capturing = None
        graph.n_launches = len(self.launches) - n
        del self.launches[n:]  # recorded, not launched

    def _empty_cache(self) -> None:
        """Forgets the pools that no graph and no workspace holds."""
        if self._capturing is not None:
            raise AssertionError("memory is freed while a graph is recorded")
        self._pools = {
            handle: pool
            for handle, pool in self._pools.items()
            if pool.n_graphs or pool.has_workspace
        }

    def called(self, func: Callable[..., Any]) -> None:
        """Note a call of torch: the first product in a capture allocates cuBLAS's workspace."""
        if func in _PRODUCTS and self._capturing is not None:
            self._capturing.has_workspace = True

    def pinned(self, tensor: torch.Tensor) -> None:
        """Note that a tensor is in pinned memory."""
        self._pinned[tensor] = None

    def copied(self, func: Callable[..., Any], args: tuple[Any, ...], on_cuda: bool) -> None:
        """Note a call of torch if it copies between host and device.

        Args:
            func, args: of the call.
            on_cuda: whether its result is to be on CUDA.
        """
        if func is torch.Tensor.copy_:
            self.n_to_host += args[0] in self._pinned
            self.n_to_device += args[1] in self._pinned
        elif func in (torch.Tensor.to, torch.tensor, torch.as_tensor):
            self.n_to_device += on_cuda
        self.n_to_host += func in (torch.Tensor.cpu, torch.Tensor.nonzero)


class _Pool:
    was_used = has_workspace = False
    n_graphs = 0


class _Graph:
    fake: FakeCuda
    pool: _Pool
    n_launches = 0

    def replay(self) -> None:
        self.fake.n_started += 1
        for _ in range(self.n_launches):
            self.fake.run_kernel()

    def __del__(self) -> None:
        if hasattr(self, "pool"):
            self.pool.n_graphs -= 1


class _Stream:
    fake: FakeCuda
    cuda_stream = 0

    def __init__(self, device: Any = None, **_: Any) -> None:
        self.device = self.fake._index(device)
        self.key = len(self.fake._streams)
        self.clock: Clock = {}
        self.fake._streams.append(self)

    def wait_stream(self, other: _Stream) -> None:
        self.clock = _later(self.clock, other.clock)

    def wait_event(self, event: _Event) -> None:
        self.clock = _later(self.clock, event.clock)

    def synchronize(self) -> None:
        self.fake._known = _later(self.fake._known, self.clock)

    def record_event(self, event: _Event | None = None) -> _Event:
        event = event or self.fake.names()["Event"]()
        event.record(self)
        return event


class _Event:
    fake: FakeCuda

    def __init__(self, **_: Any) -> None:
        self.clock: Clock = {}

    def record(self, stream: _Stream | None = None) -> None:
        self.clock = (stream or self.fake._stream()).clock

    def wait(self, stream: _Stream | None = None) -> None:
        (stream or self.fake._stream()).wait_event(self)

    def synchronize(self) -> None:
        self.fake._known = _later(self.fake._known, self.clock)

    def query(self) -> bool:
        return True

    def elapsed_time(self, _: Any) -> float:
        return 1.0


class _OnHost(TorchFunctionMode):
    def __init__(self, fake: FakeCuda) -> None:
        super().__init__()
        self._fake = fake

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__self__", None) is torch.Tensor.device:
            found = func(*args)
            return HERE if found.type == "cpu" else found
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        if func in _AS_IS:
            self._fake.pinned(args[0])
            return args[0]
        self._fake.called(func)
        kwargs = kwargs or {}
        self._fake.copied(func, args, any(map(_on_cuda, (*args[1:], *kwargs.values()))))
        kwargs = {key: _host(value) for key, value in kwargs.items()}
        is_pinned = kwargs.pop("pin_memory", False)
        result = _ZEROS.get(func, func)(*map(_host, args), **kwargs)
        if is_pinned:
            self._fake.pinned(result)
        return result


def _zeros(*size: Any, **options: Any) -> torch.Tensor:
    """torch.zeros, but large ones take no memory until they are written to."""
    wanted = torch.empty(*size, **{**options, "device": "meta"})
    if wanted.nbytes < _LARGE:
        return torch.zeros(*size, **options)
    pages = mmap.mmap(-1, wanted.nbytes)
    return torch.frombuffer(pages, dtype=wanted.dtype).view(wanted.shape)


_ZEROS = {torch.empty: _zeros, torch.zeros: _zeros, torch.empty_like: torch.zeros_like}


def _host(value: Any) -> Any:
    return torch.device("cpu") if _on_cuda(value) else value


def _on_cuda(value: Any) -> bool:
    return isinstance(value, (str, torch.device)) and str(value).startswith("cuda")


def _later(one: Clock, other: Clock) -> Clock:
    return {key: max(one.get(key, 0), other.get(key, 0)) for key in {*one, *other}}


def _always(value: Any) -> Any:
    return lambda *_, **__: value
