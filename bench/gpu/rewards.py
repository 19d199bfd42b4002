"""Rewards a second of large shapes: one wave of requests, and a stream in which rows take turns.

Weights are random and on the device alone; outputs are prescribed, see bench.scripted. In the
stream, outputs end at different times, so that most steps decode and read prompts at once.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from bench.gpu.floors import Steps
from bench.gpu.place import Place
from bench.models import random_requests
from bench.scripted import Script, ScriptedModel, load_shape, random_outputs, script_of
from bench.shapes import n_weights

SHAPES = ("qwen3-0.6b", "qwen3-8b", "qwen3-1.7b", "qwen3-4b")
VARIED = ("qwen3-0.6b", "qwen3-8b")  # also with deterministic=False, and with 8-bit weights


def run(place: Place, shapes: Sequence[str] = SHAPES) -> None:
    """Every shape, then what batch invariance costs and what 8-bit weights bring."""
    usual: dict[tuple[str, str], float] = {}
    for shape in shapes:
        for load, figures in measured(place, shape):
            usual[shape, load] = figures["rewards_per_s"]
            place.note(f"{shape}, {load}", f"{load}, {shape}", **figures)
    for name, options in (("fast", {"deterministic": False}), ("fp8", {"weights": "fp8"})):
        for shape in filter(shapes.__contains__, VARIED):
            for load, figures in measured(place, shape, **options):
                ratio = usual[shape, load] / figures["rewards_per_s"]
                figures[f"speed_over_flipfast-{name}"] = ratio
                place.note(f"{shape}, {load}, {name}", f"{load}, {shape}", **figures)


def measured(place: Place, shape: str, **options: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Loads of a shape with their figures; each is timed once, behind requests of its kind.

    Args:
        place: of the run.
        shape: of the model.
        options: of the engine, besides those of the run.
    """
    options = {**place.sizes.engine, **options}
    model = load_shape(shape, str(place.device), **options)
    steps = Steps(model, shape, place.rates, fp8=options.get("weights") == "fp8")
    wave = place.sizes.wave
    model.write(script_of(replace(wave, n=min(wave.n, 32), n_out=4), model))
    for load, script in loads(place, model, shape).items():
        steps.reset()
        run = model.write(script)
        n, n_out = len(script.prompts), sum(map(len, script.outputs))
        yield (
            load,
            {
                "shape": shape,
                "load": load,
                "deterministic": options.get("deterministic", True),
                "weights": options.get("weights", "float"),
                "dtype": model.dtype,
                "weights_in_billions": n_weights(shape) / 1e9,
                "n_rows": n,
                "rewards_per_s": n / run.seconds,
                "tokens_per_s": (sum(map(len, script.prompts)) + n_out) / run.seconds,
                "output_tokens_per_s": n_out / run.seconds,
                "steps": sum(steps.counts.values()),
                "mixed_steps": steps.counts["mixed"],
                "share_of_floor": steps.floor_s / run.seconds,
            },
        )
    model.close()
    del model, steps
    gc.collect()
    torch.cuda.empty_cache()


def loads(place: Place, model: ScriptedModel, shape: str) -> dict[str, Script]:
    """Requests by the name of a load."""
    sizes, wave = place.sizes, place.sizes.wave
    n = sizes.steady.get(shape, sizes.steady_usual)
    rng = random.Random(0)
    lengths = [rng.randint(*sizes.steady_out) for _ in range(n)]
    asked = random_requests(
        n, n_prompt=wave.n_prompt, n_shared=wave.n_shared, vocab=model.vocab_size - 1
    )
    prompts = [list(request.prompt_ids) for request in asked]
    outputs = random_outputs(lengths, vocab=model.vocab_size)
    return {"wave": script_of(wave, model), "steady": Script(prompts, outputs)}
