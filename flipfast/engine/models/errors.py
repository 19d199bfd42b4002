"""The error that sends a model to another backend."""

from flipfast.errors import ModelLoadError


class UnsupportedModelError(ModelLoadError):
    """A valid model that this decoder cannot run: an unknown family or an unsupported feature."""
