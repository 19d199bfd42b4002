"""What tests on Ray start in actors that need no torch, which takes long to import."""

from __future__ import annotations

from flipfast.config import FlipConfig
from flipfast.errors import ModelLoadError
from flipfast.serving.ray import ActorShare
from flipfast.serving.scorer import ServedScorer


class LightShare(ActorShare):
    """Leaves torch alone."""

    def set_threads(self) -> None:
        pass


def no_engine(config: FlipConfig) -> ServedScorer:
    raise ModelLoadError("there is no such model")
