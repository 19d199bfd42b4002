"""The words of references as hashes, for word F1 on a device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from flipfast.errors import InputError
from flipfast.metrics.word_f1 import CORE_AVAILABLE
from flipfast.metrics.word_f1_py import normalize
from flipfast_kernels.word_hash import hash_bytes
from flipfast_kernels.word_tables import ReferenceWords

if CORE_AVAILABLE:
    import flipfast._core as _core

_Arrays = tuple[
    npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]
]


def reference_words(texts: Sequence[str]) -> ReferenceWords:
    """Hash the words of each text after the published normalization, on the CPU.

    Args:
        texts: R true instructions, any strings.

    Returns:
        Each text's distinct words in ascending order of their hashes.

    Raises:
        InputError: `texts` is one string, or a row is not a string.
    """
    if isinstance(texts, str):
        raise InputError("texts is one str: pass a sequence of strings, such as [texts]")
    rows = tuple(texts)
    for row, text in enumerate(rows):
        if not isinstance(text, str):
            raise InputError(f"texts[{row}] is {type(text).__name__}: every row must be a string")
    arrays = _core.word_hashes(rows) if CORE_AVAILABLE else word_hashes_py(rows)
    return ReferenceWords(*(torch.from_numpy(array) for array in arrays))


def word_hashes_py(texts: tuple[str, ...]) -> _Arrays:
    """The plain Python twin of `_core.word_hashes`."""
    hashes: list[int] = []
    copies: list[int] = []
    offsets, n_words = [0], []
    for text in texts:
        # Lone surrogates are encoded like any other code point.
        words = (word.encode("utf-8", "surrogatepass") for word in normalize(text))
        counted = sorted(Counter(map(hash_bytes, words)).items())
        hashes += (word for word, _ in counted)
        copies += (count for _, count in counted)
        offsets.append(len(hashes))
        n_words.append(sum(count for _, count in counted))
    return (
        np.array(hashes, dtype=np.int64),
        np.array(copies, dtype=np.int32),
        np.array(offsets, dtype=np.int32),
        np.array(n_words, dtype=np.int32),
    )
