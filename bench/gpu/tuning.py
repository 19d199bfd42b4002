"""Measures launch configurations; the parts behind this one use them."""

from __future__ import annotations

from bench.gpu.place import Place
from flipfast.cli.tune import tune


def run(place: Place) -> None:
    """Write tuning.json, shape by shape."""
    shapes = place.sizes.tuned
    tune(shapes=shapes, device=str(place.device), quick=True, out=str(place.out / "tuning.json"))
