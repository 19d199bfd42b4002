"""Others that compute the word F1 of pairs of texts, made ready to be compared and timed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flipfast.metrics.word_f1_py import word_f1

Pairs = tuple[list[str], list[str]]  # predictions and references
# What to time, whether F1, precision and recall of all pairs (N, 3) agree with it, and a remark.
Peer = tuple[Callable[[], Any], Callable[[Any], bool], str]


def twin(predictions: list[str], references: list[str]) -> list[list[float]]:
    return [list(word_f1(*pair)) for pair in zip(predictions, references, strict=True)]


def twin_peer(pairs: Pairs, _: pytest.Config) -> Peer:
    """The package's own Python."""
    expected = twin(*pairs)
    return lambda: twin(*pairs), lambda core: core.tolist() == expected, "the same bits"


def published_peer(pairs: Pairs, config: pytest.Config) -> Peer:
    """The published code, from the file that `--reference` names."""
    path = config.getoption("--reference")
    if not path:
        pytest.skip("needs --reference=FILE, the published module that has f1_score")
    spec = importlib.util.spec_from_file_location("published", Path(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run() -> list[float]:
        found = [module.f1_score(*pair) for pair in zip(*pairs, strict=True)]
        return [one["f1"] if isinstance(one, dict) else one for one in found]

    expected = run()
    return run, lambda core: core[:, 0].tolist() == expected, "the same bits"


def torchmetrics_peer(pairs: Pairs, _: pytest.Config) -> Peer:
    """SQuAD's F1 as torchmetrics has it."""
    text = pytest.importorskip("torchmetrics.functional.text", reason="needs torchmetrics")
    predictions, references = _squad(pairs)
    return (
        lambda: text.squad(predictions, references),
        _same_mean(float(text.squad(predictions, references)["f1"]) / 100),
        "gives the mean alone, in float32; 1 where no word is left of either text",
    )


def evaluate_peer(pairs: Pairs, _: pytest.Config) -> Peer:
    """SQuAD's F1 as evaluate has it: a script on the hub, taken from the local cache."""
    evaluate = pytest.importorskip("evaluate", reason="needs evaluate")
    evaluate.config.HF_EVALUATE_OFFLINE = True
    try:
        metric = evaluate.load("squad")
    except Exception as error:  # of several kinds, by version
        pytest.skip(f"evaluate has no squad in its cache: {str(error).splitlines()[0]}")
    predictions, references = _squad(pairs)

    def run() -> Any:
        return metric.compute(predictions=predictions, references=references)

    return run, _same_mean(run()["f1"] / 100), "gives the mean alone"


PEERS = {
    "twin": twin_peer,
    "published": published_peer,
    "torchmetrics": torchmetrics_peer,
    "evaluate": evaluate_peer,
}


def _squad(pairs: Pairs) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Predictions and references as SQuAD has them."""
    rows = list(enumerate(zip(*pairs, strict=True)))
    return (
        [{"id": str(i), "prediction_text": text} for i, (text, _) in rows],
        [{"id": str(i), "answers": {"text": [x], "answer_start": [0]}} for i, (_, x) in rows],
    )


def _same_mean(expected: float) -> Callable[[Any], bool]:
    return lambda core: bool(abs(core[:, 0].mean() - expected) < 1e-6)
