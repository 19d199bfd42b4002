"""The error that sends a model to another backend."""

from flipfast.errors import ModelLoadError


class UnsupportedModelError(ModelLoadError):
    """A sound model that the decoder here cannot run: an unknown family, or a feature it lacks."""
