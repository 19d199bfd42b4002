"""Compares number formats of the model: what rounding does to rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flipfast.config import SMALL, FlipConfig
from flipfast.engine.models.hub import gguf_path
from flipfast.engine.options import resolve_device
from flipfast.errors import ConfigError, ModelLoadError
from flipfast.quality.consistency.changes import Comparison, Run, change
from flipfast.quality.raters import Group
from flipfast.quality.raters.flip import FlipRater
from flipfast.reward import FlipReward


def compare_formats(config: FlipConfig, groups: Sequence[Group]) -> Comparison:
    """Score groups with the model in float32, bfloat16 and, on CUDA, float16; on a CPU, int8, int4.

    On the native engine a format's rewards are bitwise the same in any batch, so all changes come
    from the format. Each format loads the model again, one at a time: close other rewards whose
    memory that needs.

    Args:
        config: of the reward; its dtype and weights are ignored.
        groups: any number.

    Returns:
        One run per format, and the changes from the first to each other one.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    runs, left_out = [], {}
    for name, options in _formats(config).items():
        try:
            with FlipReward(config.with_options(options)) as reward:
                scores = FlipRater(name, reward).rate(groups, seed=config.seed).scores
        except (ConfigError, ModelLoadError) as error:  # a server's model, too little memory
            left_out[name] = str(error)
        else:
            runs.append(Run.of(name, scores))
    return Comparison(runs, left_out, [change(runs[0], other) for other in runs[1:]])


def _formats(config: FlipConfig) -> dict[str, dict[str, Any]]:
    """Names of formats, and the options that make a model of each."""
    in_blocks = config.model == SMALL or gguf_path(config.model, config.revision) is not None
    weights = "float" if in_blocks else None
    floats = ["float32", "bfloat16"]
    if resolve_device(config.device).type == "cuda":
        return {name: {"dtype": name, "weights": weights} for name in [*floats, "float16"]}
    integers = {name: {"dtype": None, "weights": name} for name in ("int8", "int4")}
    return {name: {"dtype": name, "weights": weights} for name in floats} | integers
