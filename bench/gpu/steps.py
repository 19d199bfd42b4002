"""torch's profiler over some decode steps and some mixed ones: what the time of each goes into."""

from __future__ import annotations

from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from bench.gpu.floors import kind_of
from bench.gpu.place import Place
from bench.models import random_requests
from bench.scripted import load_shape
from flipfast.engine.sampling import SamplingParams
from flipfast.engine.sequence import Sequence
from flipfast.engine.step_plan import StepPlan

SHAPE = "qwen3-0.6b"
_N_STEPS = 3  # of a kind
_N_LINES = 25  # of a table


def run(place: Place) -> None:
    """Profile steps of an engine that has half of its sequences, then of one that gets more."""
    wave, options = place.sizes.wave, {**place.sizes.engine, "drafting": False}
    model = load_shape(SHAPE, str(place.device), **options)
    engine, runner = model._model.engine, model._model._runner
    asked = random_requests(
        wave.n, n_prompt=wave.n_prompt, n_shared=wave.n_shared, vocab=model.vocab_size - 1
    )
    sequences = [
        Sequence(list(one.prompt_ids), SamplingParams(wave.n_out), seed=i)
        for i, one in enumerate(asked)
    ]
    model._outputs = [[0] * wave.n_out for _ in sequences]
    kinds: list[str] = []
    compute: Any = runner.run  # type: ignore[union-attr]

    def noted(plan: StepPlan) -> Any:
        kinds.append(kind_of(plan))
        return compute(plan)

    runner.run = noted  # type: ignore[method-assign, union-attr]
    half = wave.n // 2
    for kind, more in (("decode", sequences[:half]), ("mixed", sequences[half:])):
        engine.start(more)
        while not kinds or kinds[-1] != kind:
            engine.step()
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
            del kinds[:]
            for _ in range(_N_STEPS):
                engine.step()
            torch.cuda.synchronize()
        print(f"{kinds}:")
        averages = found.key_averages()
        for by in ("self_device_time_total", "self_cpu_time_total"):
            print(averages.table(sort_by=by, row_limit=_N_LINES, max_name_column_width=60))
        device_us = sum(one.self_device_time_total for one in averages)
        place.note(
            f"profile of {kind} steps",
            "steps",
            shape=SHAPE,
            kinds=kinds.copy(),
            device_ms_a_step=1e-3 * device_us / _N_STEPS,
            host_ms_a_step=1e-3 * sum(x.self_cpu_time_total for x in averages) / _N_STEPS,
        )
    engine.cancel_all()
    model.close()
