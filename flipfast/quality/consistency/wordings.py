"""Compares wordings of the prompt: do their rewards rank responses alike?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from flipfast.config import FlipConfig
from flipfast.errors import ConfigError
from flipfast.prompts.templates import STYLES
from flipfast.quality.consistency.changes import Comparison, Run, change
from flipfast.quality.raters import Group
from flipfast.quality.raters.flip import FlipRater
from flipfast.reward import FlipReward


def compare_wordings(reward: FlipReward, groups: Sequence[Group]) -> Comparison:
    """Score groups under every prompt that works with the reward's model and options.

    Args:
        reward: its own prompt is one of them: a style, or the files in prompts_dir.
        groups: any number.

    Returns:
        One run per prompt, and the changes between any two of them.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    runs, left_out = [], {}
    with_context = any(group.context for group in groups)
    for name, config in _configs(reward.config).items():
        try:
            worded = FlipReward(config, inverter=reward.inverter)
        except ConfigError as error:  # json="forced" without JSON
            left_out[name] = str(error)
            continue
        if with_context and not worded.takes_context:
            left_out[name] = "the prompt has no {context}, and groups have one"
            continue
        scores = FlipRater(name, worded).rate(groups, seed=config.seed).scores
        runs.append(Run.of(name, scores))
    return Comparison(runs, left_out, [change(a, b) for a, b in combinations(runs, 2)])


def _configs(config: FlipConfig) -> dict[str, FlipConfig]:
    ours = {style: config.with_options({"style": style, "prompts_dir": None}) for style in STYLES}
    return ours if config.prompts_dir is None else {"prompts_dir": config, **ours}
