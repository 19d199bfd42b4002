"""Sentence-level BLEU without the brevity penalty (Papineni et al. 2002)."""

from __future__ import annotations

from collections.abc import Sequence

from flipfast.errors import MissingDependencyError
from flipfast.metrics.base import Metric, Values, by_pair


def bleu() -> Metric:
    """Make the metric: the geometric mean of n-gram precisions up to 4, by sacrebleu, in [0, 1].

    Its tokenizer is 13a, n-grams longer than the prediction do not count, and zero precisions are
    smoothed exponentially.

    Raises:
        MissingDependencyError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise MissingDependencyError(
            "bleu needs sacrebleu: pip install 'flipfast[eval]'"
        ) from error
    scorer = BLEU(effective_order=True)

    def value(prediction: str, reference: str) -> float:
        found = scorer.sentence_score(prediction, [reference])
        return min(float(found.score / found.bp / 100), 1.0) if found.bp else 0.0

    def score(predictions: Sequence[str], references: Sequence[str]) -> Values:
        return by_pair(value, predictions, references)

    return score
