"""Loads metrics by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flipfast.errors import ConfigError
from flipfast.metrics.base import Metric, Values, f1_of_units
from flipfast.metrics.bleu import bleu
from flipfast.metrics.char_f1 import char_f1
from flipfast.metrics.cjk_f1 import cjk_f1
from flipfast.metrics.encoder import encoder_similarity
from flipfast.metrics.f_beta import f_beta
from flipfast.metrics.idf_f1 import idf_f1_of_file
from flipfast.metrics.rouge_l import rouge_l
from flipfast.metrics.word_f1 import overlap_f1

WORD_F1 = "word_f1"


def word_f1(predictions: Sequence[str], references: Sequence[str]) -> Values:
    """The published metric; see `overlap_f1`."""
    return overlap_f1(predictions, references)[:, 0]


_PLAIN: dict[str, Callable[[], Metric]] = {
    WORD_F1: lambda: word_f1,
    "rouge_l": lambda: rouge_l,
    "bleu": bleu,
    "char_f1": lambda: char_f1,
    "cjk_f1": lambda: cjk_f1,
}
_WITH_VALUE: dict[str, tuple[str, Callable[[str], Metric]]] = {
    "f_beta": ("2", lambda value: f_beta(_number(value))),
    "idf_f1": ("INSTRUCTIONS.txt", idf_f1_of_file),
    "encoder": ("FOLDER", encoder_similarity),
}
TOKEN_F1 = "token_f1"
FORMS = (*_PLAIN, TOKEN_F1, *(f"{name}:{value}" for name, (value, _) in _WITH_VALUE.items()))


def load_metric(spec: str, tokenizer: Any) -> Metric:
    """Load a metric from its name, with a value after a colon if it takes one.

    Args:
        spec: one of FORMS, with your own value.
        tokenizer: of the inverter, whose tokens token_f1 counts.

    Raises:
        ConfigError: the metric does not exist, or its value cannot be used.
        MissingDependencyError: its package is not installed.
        ModelLoadError: its encoder cannot be loaded.
    """
    name, colon, value = spec.partition(":")
    if spec in _PLAIN:
        return _PLAIN[spec]()
    if spec == TOKEN_F1:
        return f1_of_units(lambda text: tokenizer.encode(text, add_special_tokens=False))
    if name in _WITH_VALUE and colon and value:
        return _WITH_VALUE[name][1](value)
    raise ConfigError(f"there is no metric {spec!r}: use one of {', '.join(FORMS)}")


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"f_beta takes a number, not {value!r}: f_beta:2") from None
