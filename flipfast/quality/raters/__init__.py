"""Raters: the FLIP reward and judges to compare it with, on one loaded model. One file each."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from flipfast.errors import ConfigError
from flipfast.quality.option_text import read_options
from flipfast.quality.raters.base import Cost, Group, Rater, Ratings
from flipfast.reward import FlipReward
from flipfast.scoring.assembly import loading_options

__all__ = ["Cost", "Group", "Rater", "Ratings", "available_raters", "load_rater"]


def available_raters() -> list[str]:
    """List the names of the raters in this folder, sorted, without importing them."""
    names = (module.name for module in iter_modules(__path__))
    return sorted(name for name in names if name != "base" and not name.startswith("_"))


def load_rater(spec: str, reward: FlipReward) -> Rater:
    """Load a rater that uses a reward's model and options.

    Args:
        spec: a name from `available_raters()`, and after a colon the options that differ from the
            reward's: "flip", "flip:metric=rouge_l,style=direct", "pairwise:temperature=0.7".
        reward: must stay open as long as the rater is used.

    Raises:
        ConfigError: the rater or option does not exist, or the option needs another model.
    """
    name, _, text = spec.partition(":")
    if name not in available_raters():
        raise ConfigError(f"there is no rater {name!r}: use one of {', '.join(available_raters())}")
    given = reward.config
    config = given.with_options(read_options(text))
    if (config.model, loading_options(config)) != (given.model, loading_options(given)):
        raise ConfigError(
            f"{spec!r} needs the model loaded in another way: raters share one, so give "
            "such options for all of them"
        )
    module = import_module(f"{__name__}.{name}")
    rater: Rater = module.load(spec, config, reward.inverter)
    return rater
