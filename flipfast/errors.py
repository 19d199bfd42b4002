"""All errors that flipfast raises on purpose; most subclass the fitting built-in error too."""


class FlipfastError(Exception):
    """Base of every error that flipfast raises on purpose."""


class ConfigError(FlipfastError, ValueError):
    """An option, or a combination of options, that cannot be used."""


class InputError(FlipfastError, ValueError):
    """Data passed to a call has the wrong type, length or shape."""


class ContentlessError(InputError):
    """A completion without a text to score; the message says why it has none."""


class ModelLoadError(FlipfastError, RuntimeError):
    """A model, tokenizer or template could not be loaded."""


class MissingDependencyError(FlipfastError, ImportError):
    """An optional package is needed but not installed."""


class QueueFullError(FlipfastError):
    """Too many rows are waiting; try again later.

    Attributes:
        retry_after: seconds until it may be worth trying again.
    """

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnavailableError(FlipfastError):
    """Nothing can be scored now: the engine is asleep, starting, crashed or shutting down.

    Attributes:
        retry_after: seconds until it may be worth trying again.
    """

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NoRewardError(FlipfastError, RuntimeError):
    """A row has no reward, and the caller asked for an exception instead."""
