"""A CUDA device that is none, to run through code that needs one.

torch says that there is a Hopper and keeps its tensors on the CPU; Triton compiles every kernel for
compute capability 9.0, with the arguments that it is called with, and launches nothing. New tensors
are zeros, so that what no kernel has written can be read; no result means anything.
"""

from __future__ import annotations

import contextlib
import os
from types import SimpleNamespace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

HERE = torch.device("cuda", 0)
_SHARED = 232_448  # bytes that a program of a Hopper may have
_ZEROS = {torch.empty: torch.zeros, torch.empty_like: torch.zeros_like}
_ON_HOST = (torch.Tensor.pin_memory, torch.Tensor.cuda)
_MEMORY = 10**10  # bytes that are said to be free
_FEW_SECONDS = 3.0  # for tuning


def pretend(*, compiles: bool) -> None:
    """Make this thread see the device, for good; call it before flipfast is imported.

    Args:
        compiles: whether Triton compiles what it would launch.
    """
    from triton.runtime import JITFunction, driver

    for name, value in _cuda().items():
        setattr(torch.cuda, name, value)
    torch.Generator = _Generator  # type: ignore[misc]
    profile, host = torch.profiler.profile, [torch.profiler.ProfilerActivity.CPU]
    torch.profiler.profile = lambda **_: profile(activities=host)  # type: ignore[misc, assignment]
    torch.set_num_threads(1)  # nothing here is large enough for more
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # in other threads nothing is pretended
    _OnHost().__enter__()
    driver.set_active(_Driver())
    if not compiles:
        JITFunction.run = lambda *_, **__: None
    _shrink()


def _shrink() -> None:
    """One layer of each shape, and little time to tune; nothing is wrong with any candidate."""
    from bench import shapes
    from flipfast.cli import tune
    from flipfast_kernels import problems, search

    few = {"num_hidden_layers": 1, "intermediate_size": 1024}  # others decide what is compiled
    shapes.VOCABULARY = 2048
    for name in shapes.QWEN3:
        found = shapes.SHAPES[name]
        config = {**found.config, **few, "vocab_size": shapes.VOCABULARY}
        shapes.SHAPES[name] = found._replace(config=config)
    tune._QUICK_SECONDS = _FEW_SECONDS
    search._wrong = lambda *_: None
    problems.paged_attention_ref = lambda *_, **__: torch.zeros(1)  # which takes seconds


class _OnHost(TorchFunctionMode):
    """Keeps on the CPU what is asked for on CUDA, and says that it is on CUDA."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__self__", None) is torch.Tensor.device:
            found = func(*args)
            return HERE if found.type == "cpu" else found
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        if func in _ON_HOST:
            return args[0]
        kwargs = {key: _host(value) for key, value in (kwargs or {}).items()}
        kwargs.pop("pin_memory", None)
        return _ZEROS.get(func, func)(*map(_host, args), **kwargs)


def _host(value: Any) -> Any:
    on_cuda = isinstance(value, (str, torch.device)) and str(value).startswith("cuda")
    return torch.device("cpu") if on_cuda else value


class _Generator(torch.Generator):
    def __new__(cls, *_: Any, **__: Any) -> _Generator:
        return super().__new__(cls)


class _Driver:
    """Triton's driver of a device that loads programs and runs none."""

    def __init__(self) -> None:
        self.utils = SimpleNamespace(
            get_device_properties=lambda _: {"max_shared_mem": _SHARED},
            load_binary=lambda *_: (1, 1, 255, 0, 1024),
            unload_module=lambda _: None,
        )
        self.launcher_cls = lambda *_: lambda *_, **__: None

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return HERE


class _Event:
    def __init__(self, **_: Any) -> None: ...

    def record(self, *_: Any) -> None: ...

    def synchronize(self) -> None: ...

    def wait(self, *_: Any) -> None: ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, _: Any) -> float:
        return 1.0


class _Stream:
    cuda_stream = 0

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def wait_stream(self, _: Any) -> None: ...

    def wait_event(self, _: Any) -> None: ...

    def synchronize(self) -> None: ...

    def record_event(self, event: Any = None) -> Any:
        return event or _Event()


class _Graph:
    def replay(self) -> None: ...

    def pool(self) -> tuple[int, int]:
        return (0, 0)


def _cuda() -> dict[str, Any]:
    """torch.cuda's names that this project and what it stands on use."""
    properties = SimpleNamespace(
        name="rehearsal", major=9, minor=0, multi_processor_count=132, total_memory=_MEMORY
    )
    values = {
        "is_available": True,
        "is_initialized": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_name": properties.name,
        "get_device_properties": properties,
        "get_device_capability": (9, 0),
        "mem_get_info": (_MEMORY, _MEMORY),
        "memory_allocated": 0,
        "max_memory_reserved": 0,
        "reset_peak_memory_stats": None,
        "synchronize": None,
        "empty_cache": None,
        "set_device": None,
        "manual_seed_all": None,
        "device": contextlib.nullcontext(),
        "stream": contextlib.nullcontext(),
        "graph": contextlib.nullcontext(),
        "graph_pool_handle": (0, 0),
        "current_stream": _Stream(),
        "default_stream": _Stream(),
    }
    # A function for each, as torch keeps rules by function.
    calls = {name: _always(value) for name, value in values.items()}
    return {**calls, "Stream": _Stream, "Event": _Event, "CUDAGraph": _Graph}


def _always(value: Any) -> Any:
    return lambda *_, **__: value
