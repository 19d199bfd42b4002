"""flipfast: the FLIP reward, exact to the published definition, with a small public API.

A small language model infers the instruction from a response; the reward is the word-level F1
between the inferred and the true instruction. Names load on first use, so `import flipfast`
stays fast and pulls in no heavy package.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flipfast.config import FlipConfig
    from flipfast.errors import (
        ConfigError,
        FlipfastError,
        InputError,
        MissingDependencyError,
        ModelLoadError,
    )
    from flipfast.metrics import overlap_f1
    from flipfast.parsing import extract_instruction
    from flipfast.reward import BestOf, FlipReward, ScoreBatch

    __version__: str

__all__ = [
    "BestOf",
    "ConfigError",
    "FlipConfig",
    "FlipReward",
    "FlipfastError",
    "InputError",
    "MissingDependencyError",
    "ModelLoadError",
    "ScoreBatch",
    "__version__",
    "extract_instruction",
    "overlap_f1",
]

_HOME = {
    "BestOf": "flipfast.reward",
    "FlipConfig": "flipfast.config",
    "FlipReward": "flipfast.reward",
    "ScoreBatch": "flipfast.reward",
    "extract_instruction": "flipfast.parsing",
    "overlap_f1": "flipfast.metrics",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        value: object = _version()
    elif name in __all__:
        value = getattr(import_module(_HOME.get(name, "flipfast.errors")), name)
    else:
        raise AttributeError(f"module 'flipfast' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("flipfast")
    except PackageNotFoundError:  # a source tree on sys.path that was never installed
        return "0+unknown"
