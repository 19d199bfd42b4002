"""Word-level F1 over a batch, by the C++ text core if it was built, else by its Python twin."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from flipfast.errors import InputError
from flipfast.metrics.word_f1_py import word_f1

try:
    import flipfast._core as _core
except ImportError:  # a source tree on sys.path without a build: same values, slower
    CORE_AVAILABLE = False
else:
    CORE_AVAILABLE = True


def overlap_f1(
    predictions: Sequence[str], references: Sequence[str], *, threads: int = 0
) -> npt.NDArray[np.float64]:
    """Score each prediction against the reference of the same row by word overlap.

    Bit-equal to the published definition, see `flipfast.metrics.word_f1_py`.

    Args:
        predictions: N inferred instructions, any strings.
        references: N true instructions.
        threads: worker threads; 0 picks by the size of the batch and the machine. The values do
            not depend on it, and the Python twin ignores it.

    Returns:
        float64 array (N, 3): f1, precision, recall, each in [0, 1].

    Raises:
        InputError: a row is not a string, the lengths differ, or `threads` is negative.
    """
    predictions = _strings("predictions", predictions)
    references = _strings("references", references)
    if len(predictions) != len(references):
        raise InputError(
            f"{len(predictions)} predictions but {len(references)} references: "
            "pass one reference for each prediction"
        )
    if threads < 0:
        raise InputError(f"threads is {threads}: pass 0 (automatic) or a positive number")
    if CORE_AVAILABLE:
        return _core.overlap_f1(predictions, references, threads)
    rows = [word_f1(*pair) for pair in zip(predictions, references, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(len(rows), 3)


def _strings(name: str, texts: Iterable[str]) -> tuple[str, ...]:
    """Return the texts as a tuple, which cannot change while the core reads it."""
    if isinstance(texts, str | bytes):
        raise InputError(
            f"{name} is one {type(texts).__name__}: pass a sequence of strings, such as [{name}]"
        )
    try:
        rows = tuple(texts)
    except TypeError:
        raise InputError(f"{name} is {type(texts).__name__}: pass a sequence of strings") from None
    for row, text in enumerate(rows):
        if not isinstance(text, str):
            raise InputError(f"{name}[{row}] is {type(text).__name__}: every row must be a string")
    return rows
