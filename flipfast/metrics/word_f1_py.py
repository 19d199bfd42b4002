"""Word-level F1 in plain Python: the readable twin of the C++ text core, its oracle and fallback.

The definition is the published one of FLIP (arXiv 2602.13551), which is SQuAD's answer F1.
"""

import re
import string
from collections import Counter

_DELETE_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")


def normalize(text: str) -> list[str]:
    """Split a text into the words that are compared.

    Lowercases, deletes ASCII punctuation, replaces each standalone article with a space, and splits
    at white space. All steps except the punctuation follow Python's Unicode tables.

    Args:
        text: any string, lone surrogates and NUL included.

    Returns:
        The words in order; empty if nothing is left.
    """
    lowered = text.lower().translate(_DELETE_PUNCTUATION)
    return _ARTICLE.sub(" ", lowered).split()


def word_f1(prediction: str, reference: str) -> tuple[float, float, float]:
    """Score one prediction against one reference by the multiset overlap of their words.

    Args:
        prediction: the inferred instruction.
        reference: the true instruction.

    Returns:
        f1, precision and recall as float64 in [0, 1]; all 0.0 if no word is shared, even if both
        texts are empty.
    """
    predicted, referred = normalize(prediction), normalize(reference)
    same = (Counter(predicted) & Counter(referred)).total()
    return scores_of_counts(same, len(predicted), len(referred))


def scores_of_counts(same: int, n_predicted: int, n_referred: int) -> tuple[float, float, float]:
    """Return F1, precision and recall of two texts from their word counts, `same` words shared."""
    if same == 0:
        return 0.0, 0.0, 0.0
    precision, recall = same / n_predicted, same / n_referred
    return (2 * precision * recall) / (precision + recall), precision, recall
