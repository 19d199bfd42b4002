"""Every error flipfast raises on purpose; each is also the built-in error a caller would expect."""


class FlipfastError(Exception):
    """Base of every error that flipfast raises on purpose."""


class ConfigError(FlipfastError, ValueError):
    """An option, or a combination of options, that cannot be used."""


class InputError(FlipfastError, ValueError):
    """Data passed to a call has the wrong type, length or shape."""


class ModelLoadError(FlipfastError, RuntimeError):
    """A model, a tokenizer or a template could not be loaded."""


class MissingDependencyError(FlipfastError, ImportError):
    """An optional package is needed and is not installed."""
