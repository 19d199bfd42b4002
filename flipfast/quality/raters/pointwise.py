"""A judge that rates each response on its own, from 1 to 10."""

from __future__ import annotations

from flipfast.backends import Inverter
from flipfast.config import FlipConfig
from flipfast.prompts.judging import POINTWISE
from flipfast.quality.raters._verdicts import last_rating
from flipfast.quality.raters._writing import WritingJudge

LOWEST, HIGHEST = 1, 10


class PointwiseJudge(WritingJudge):
    """Scores a response by the number in the last `[[n]]` of the output, from 1 to 10.

    The verdict has the form of single-answer grading in Zheng et al. 2023 (arXiv 2306.05685).
    """

    def _find(self, answer: str) -> float | None:
        return last_rating(answer)

    def _offers(self, value: float, n_shown: int) -> bool:
        return LOWEST <= value <= HIGHEST


def load(name: str, config: FlipConfig, inverter: Inverter) -> PointwiseJudge:
    """See load_rater."""
    return PointwiseJudge(name, config, inverter, POINTWISE)
