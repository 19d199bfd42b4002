"""Fixtures of the engine's tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import flipfast._cpu as _cpu
from flipfast.engine.ops.cpu_linear import CpuLinear
from flipfast.engine.ops.cpu_quantized import QuantizedCpuLinear
from flipfast.engine.ops.torch_ops import TorchLinear
from flipfast.engine.step_costs import Prices, StepCosts


@pytest.fixture(params=_cpu.isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each level of instructions that this CPU has."""
    before = _cpu.isa()
    _cpu.set_isa(request.param)
    yield str(request.param)
    _cpu.set_isa(before)


@pytest.fixture(params=[False, True], ids=["in step", "overlapped"])
def overlap(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def cheap_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixes what steps cost, so that drafts do not hang on how busy the machine is."""
    cheap = Prices(step=1.0, sequence=1.0, row=1e-9, drafted=0.0)
    monkeypatch.setattr(StepCosts, "prices", lambda self: cheap)


@pytest.fixture
def batch_dependent_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts the sums of every product in two, at a place that hangs on the number of rows.

    What asserts that bits do not depend on the batch must notice, whatever the processor.
    """

    def plant(plain: Any) -> Any:
        def product(self: Any, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
            cut = self.n_in * (len(x) % 7) // 7
            first, second = x.clone(), x.clone()
            first[:, cut:] = 0
            second[:, :cut] = 0
            rest = plain(self, second, torch.empty_like(out))
            return plain(self, first, out).add_(rest)

        return product

    for kind in (CpuLinear, QuantizedCpuLinear, TorchLinear):
        monkeypatch.setattr(kind, "__call__", plant(kind.__call__))
