"""What steps of an engine do, and the least time that a device could take for them."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from bench.scripted import ScriptedModel
from bench.shapes import SHAPES, heads, products
from flipfast.engine.step_plan import StepPlan
from flipfast.profiling.recorder import Cost, Rates

_HALF = 2.0  # bytes of a number


def floor_s(plan: StepPlan, shape: str, rates: Rates, *, fp8: bool = False) -> float:
    """Seconds that a step takes at least: weights and the keys of each sequence are read once,
    products and attention run at the product's rate; all else is free.

    Args:
        plan: of the step.
        shape: of the model.
        rates: of the device.
        fp8: whether weights, but those of the head, have 8 bits and twice the rate.
    """
    config = SHAPES[shape].config
    n_layers, hidden = config["num_hidden_layers"], config["hidden_size"]
    n_heads, n_kv_heads, head_dim = heads(shape)
    weights = n_layers * sum(n_out * n_in for n_out, n_in in products(shape))
    head = config["vocab_size"] * hidden
    n_logits = sum(1 + len(chunk.draft) for chunk in plan.chunks if chunk.samples)
    keys = sum(chunk.start + chunk.n_rows for chunk in plan.chunks)
    pairs = sum(x.n_rows * x.start + x.n_rows * (x.n_rows + 1) / 2 for x in plan.chunks)
    times = 2.0 if fp8 else 1.0
    work = [
        Cost(_HALF * weights / times, 2.0 * weights * plan.n_rows / times),
        Cost(_HALF * head if n_logits else 0.0, 2.0 * head * n_logits),
        Cost(
            _HALF * 2 * keys * n_kv_heads * head_dim * n_layers,
            4.0 * pairs * n_heads * head_dim * n_layers,
        ),
    ]
    return sum(rates.floor(cost) for cost in work)


class Steps:
    """Counts a model's steps and adds up their floors, by kind: "prefill", "decode", "mixed"."""

    def __init__(
        self, model: ScriptedModel, shape: str, rates: Rates, *, fp8: bool = False
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.floors: dict[str, float] = defaultdict(float)  # seconds
        runner: Any = model._model._runner
        compute = runner.run

        def run(plan: StepPlan) -> Any:
            kind = kind_of(plan)
            self.counts[kind] += 1
            self.floors[kind] += floor_s(plan, shape, rates, fp8=fp8)
            return compute(plan)

        runner.run = run

    def reset(self) -> None:
        """Start anew."""
        self.counts.clear()
        self.floors.clear()

    @property
    def floor_s(self) -> float:
        """Of all steps."""
        return sum(self.floors.values())


def kind_of(plan: StepPlan) -> str:
    """Whether a step decodes, reads prompts, or does both."""
    reads, writes = bool(plan.prefilling), len(plan.prefilling) < len(plan.chunks)
    return "mixed" if reads and writes else "prefill" if reads else "decode"
