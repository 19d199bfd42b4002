"""The likelihood reward as a rater."""

from __future__ import annotations

from flipfast.backends import Inverter
from flipfast.config import FlipConfig
from flipfast.quality.raters.flip import FlipRater
from flipfast.reward import FlipReward

_OF_WRITING = ("temperature", "samples", "thinking", "json", "metric")


def load(name: str, config: FlipConfig, inverter: Inverter) -> FlipRater:
    """See load_rater. Resets the shared generation options, since nothing is generated."""
    usual = {option: getattr(FlipConfig, option) for option in _OF_WRITING}
    likely = config.with_options({**usual, "scoring": "likelihood"})
    return FlipRater(name, FlipReward(likely, inverter=inverter))
