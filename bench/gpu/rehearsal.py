"""A run on a CUDA device that is none (`bench.gpu.fake_cuda`), through code that needs one.

Triton compiles every kernel with the arguments that it is called with, and launches nothing.
"""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import torch

from bench.gpu.fake_cuda import HERE, FakeCuda

_SHARED = 232_448  # bytes that a program of a Hopper may have
_FEW_SECONDS = 3.0  # for tuning


def pretend(*, compiles: bool, capability: int = 90) -> None:
    """Make this thread see the device, for good; call it before flipfast is imported.

    Args:
        compiles: whether Triton compiles what it would launch.
        capability: the device's compute capability, 90 for 9.0.
    """
    from triton.runtime import JITFunction, driver

    fake = FakeCuda(capability=capability)
    for name, value in fake.names().items():
        setattr(torch.cuda, name, value)
    torch.Tensor.record_stream = fake.record_stream()  # type: ignore[assignment, method-assign]
    torch.Generator = _Generator  # type: ignore[misc]
    profile, host = torch.profiler.profile, [torch.profiler.ProfilerActivity.CPU]
    torch.profiler.profile = lambda **_: profile(activities=host)  # type: ignore[misc, assignment]
    torch.set_num_threads(1)  # nothing here is large enough for more
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # in other threads nothing is pretended
    fake.mode().__enter__()
    driver.set_active(_Driver(capability))
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
    problems.linear_ref = problems.linear_fp8_ref = lambda x, weight: torch.zeros(len(x), 1)


class _Generator(torch.Generator):
    def __new__(cls, *_: Any, **__: Any) -> _Generator:
        return super().__new__(cls)


class _Driver:
    """Triton's driver of a device that loads programs and runs none."""

    def __init__(self, capability: int) -> None:
        self._capability = capability
        self.utils = SimpleNamespace(
            get_device_properties=lambda _: {"max_shared_mem": _SHARED},
            load_binary=lambda *_: (1, 1, 255, 0, 1024),
            unload_module=lambda _: None,
        )
        self.launcher_cls = lambda *_: lambda *_, **__: None

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self._capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return HERE
