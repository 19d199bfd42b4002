"""Word F1 in which rare words count more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import log
from pathlib import Path

from flipfast.errors import ConfigError
from flipfast.metrics.base import Metric, weighted_f1
from flipfast.metrics.word_f1_py import normalize


def idf_f1(texts: Iterable[str]) -> Metric:
    """Make the metric that weights words by ln((1 + n) / (1 + df)) + 1, their inverse frequency.

    Args:
        texts: the n texts to count frequencies in, such as instructions of the training set.

    Raises:
        ConfigError: there are no texts.
    """
    n, found = 0, Counter[str]()
    for text in texts:
        n += 1
        found.update(set(normalize(text)))
    if not n:
        raise ConfigError("idf_f1 has no texts to count words in: give a file with some lines")
    weights = {word: log((1 + n) / (1 + df)) + 1 for word, df in found.items()}
    return weighted_f1(normalize, weights, unknown=log(1 + n) + 1)


def idf_f1_of_file(path: str) -> Metric:
    """Make the metric from a file with one text per line; see `idf_f1`.

    Raises:
        ConfigError: the file cannot be read, or is empty.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"idf_f1 cannot read {path}: {error}") from error
    return idf_f1(line for line in lines if line.strip())
