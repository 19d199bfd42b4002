"""A judge that names the best of all responses."""

from __future__ import annotations

import hashlib
import json

from flipfast.backends import Inverter
from flipfast.config import FlipConfig
from flipfast.errors import InputError
from flipfast.prompts.judging import LETTERS, LISTWISE
from flipfast.quality.raters._judge import Heard, Order, Verdict
from flipfast.quality.raters._verdicts import last_letter
from flipfast.quality.raters._writing import WritingJudge
from flipfast.quality.raters.base import Group


class ListwiseJudge(WritingJudge):
    """Scores the response that the judge names as 1.0, and the others as 0.0.

    One prompt shows all responses, in an order that depends only on the seed and the group's
    texts. A single response has the status "alone" and no score; if the verdict cannot be read,
    no response has a score.
    """

    @property
    def uses_seed(self) -> bool:
        return True

    def _orders(self, group: Group, seed: int) -> list[Order]:
        n = len(group.responses)
        if n > len(LETTERS):
            raise InputError(
                f"{n} responses are more than the {len(LETTERS)} letters they are shown under: "
                "use smaller groups, or another judge"
            )
        keys = [_key(seed, group, text) for text in group.responses]
        return [tuple(sorted(range(n), key=keys.__getitem__))] if n > 1 else []

    def _find(self, answer: str) -> float | None:
        return last_letter(answer)

    def _offers(self, value: float, n_shown: int) -> bool:
        return value < n_shown

    def _tally(self, n_responses: int, heard: Heard) -> list[Verdict]:
        if not heard:
            return [Verdict(None, "alone")] * n_responses
        ((order, verdict),) = heard
        if verdict.value is None:
            return [verdict] * n_responses
        best = order[int(verdict.value)]
        return [Verdict(float(place == best), "ok") for place in range(n_responses)]


def _key(seed: int, group: Group, response: str) -> bytes:
    """Return the key by which responses are ordered; their order does not depend on the input's."""
    content = json.dumps([seed, group.instruction, group.context or None, response])
    return hashlib.blake2b(content.encode(), digest_size=16).digest()


def load(name: str, config: FlipConfig, inverter: Inverter) -> ListwiseJudge:
    """See load_rater."""
    return ListwiseJudge(name, config, inverter, LISTWISE, n_shown=2)
