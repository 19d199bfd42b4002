"""Profiles one run of a reward, stage by stage, against the device's peak rates."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from flipfast.config import FlipConfig
from flipfast.engine.options import DTYPES, resolve_device
from flipfast.profiling.rates import measure_rates
from flipfast.profiling.recorder import CudaClock, Rates, Recorder, Stage
from flipfast.profiling.stages import instrumented
from flipfast.reward import FlipReward


@dataclass(frozen=True)
class Profile:
    """Where the time of a run went.

    Attributes:
        stages: of the run, each without nested stages.
        seconds: of the whole run, including the overhead of timing.
        rates: of the device, measured right before the run.
        device, dtype: where the model ran, and the dtype of its matrix products.
    """

    stages: list[Stage]
    seconds: float
    rates: Rates
    device: torch.device
    dtype: torch.dtype

    def share(self, stage: Stage) -> float:
        """Return a stage's share of the run's time, 0 to 1; host and device stages may overlap."""
        return stage.seconds / self.seconds

    @property
    def largest_first(self) -> list[Stage]:
        """The stages by decreasing time."""
        return sorted(self.stages, key=lambda stage: -stage.seconds)


def profile_run(reward: FlipReward, score: Callable[[], object]) -> Profile:
    """Time the stages of one run that starts with an empty prefix cache.

    Args:
        reward: the reward, with its model loaded and warmed up.
        score: the run.
    """
    device, dtype = device_and_dtype(reward.config)
    rates = measure_rates(device, dtype)
    recorder = Recorder(CudaClock() if device.type == "cuda" else None)
    seconds = recorded_run(reward, score, recorder)
    return Profile(recorder.totals(rates), seconds, rates, device, dtype)


def recorded_run(reward: FlipReward, score: Callable[[], object], recorder: Recorder) -> float:
    """Record such a run's stages; returns its duration in seconds."""
    device = resolve_device(reward.config.device)
    forget = getattr(reward.inverter, "forget_prefixes", None)
    if forget is not None:
        forget()
    with instrumented(recorder):
        started = time.perf_counter()
        score()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started


def device_and_dtype(config: FlipConfig) -> tuple[torch.device, torch.dtype]:
    """Return where the model runs, and the dtype of its matrix products."""
    device = resolve_device(config.device)
    if config.dtype is not None:
        return device, DTYPES[config.dtype]
    if device.type == "cuda":
        return device, torch.bfloat16
    from flipfast.engine.ops.cpu import best_weight_dtype

    return device, best_weight_dtype()
