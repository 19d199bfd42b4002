"""Several machines with Ray: engines in actors, behind Ray Serve, or for folders with Ray Data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flipfast.errors import MissingDependencyError

if TYPE_CHECKING:
    from flipfast.serving.ray.actor import ActorShare
    from flipfast.serving.ray.folder import score_folder
    from flipfast.serving.ray.pool import RayPool
    from flipfast.serving.ray.replicas import deployment

__all__ = ["ActorShare", "RayPool", "deployment", "score_folder"]

_HOMES = {
    "ActorShare": "actor",
    "RayPool": "pool",
    "deployment": "replicas",
    "score_folder": "folder",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"Ray cannot be imported ({error}): pip install 'flipfast[ray]'"
        ) from error
