"""Judges on models that answer from a script."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from flipfast.backends import InversionRequest, Likelihood, LikelihoodRequest
from flipfast.quality.raters import Rater, load_rater
from flipfast.reward import FlipReward
from tests.prompts.conftest import (
    CHAT,
    make_tokenizer,  # noqa: F401  (a fixture)
)
from tests.scripted import ScriptedInverter

Answer = Callable[[str, InversionRequest], Any]


class Opinionated(ScriptedInverter):
    """Says Yes with the probability that `belief(prompt)` gives, No with half of the rest."""

    has_likelihoods = True

    def __init__(self, tokenizer: Any, belief: Callable[[str], float]) -> None:
        super().__init__(tokenizer, lambda prompt, request: pytest.fail("nothing is generated"))
        self.belief = belief
        self.asked: list[LikelihoodRequest] = []

    def likelihoods(
        self,
        requests: Sequence[LikelihoodRequest],
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Likelihood]:
        self.asked += requests
        return [self._likelihood(request) for request in requests]

    def _likelihood(self, request: LikelihoodRequest) -> Likelihood:
        prompt = self.tokenizer.decode(list(request.prompt_ids))
        if "cursed" in prompt:
            return Likelihood([], [], "out of luck")
        yes = self.belief(prompt)
        says_yes = self.tokenizer.decode(list(request.target_ids)) == "Y"
        return Likelihood([math.log(yes if says_yes else (1 - yes) / 2)], [0])


@pytest.fixture
def make_judge(make_tokenizer: Any) -> Callable[..., tuple[Rater, ScriptedInverter]]:  # noqa: F811
    """A function from a rater's name and its model's answers to the rater and the model."""

    def make(
        spec: str, answer: Answer, *, chat_template: str | None = None, **options: Any
    ) -> tuple[Rater, ScriptedInverter]:
        given = {} if chat_template is None else {"chat_template": chat_template}
        inverter = ScriptedInverter(make_tokenizer(**given), answer)
        return load_rater(spec, FlipReward("scripted", inverter=inverter, **options)), inverter

    return make


@pytest.fixture
def make_believer(make_tokenizer: Any) -> Callable[..., tuple[Rater, Opinionated]]:  # noqa: F811
    """A function from a belief to a P(True) judge and its model."""

    def make(
        belief: Callable[[str], float], *, chat_template: str = CHAT, **options: Any
    ) -> tuple[Rater, Opinionated]:
        inverter = Opinionated(make_tokenizer(chat_template=chat_template), belief)
        return load_rater("p_true", FlipReward("scripted", inverter=inverter, **options)), inverter

    return make


@pytest.fixture
def shown() -> Callable[[str], dict[str, str]]:
    """A function from a prompt to its responses, by letter; "" for one that stands alone."""

    def read(prompt: str) -> dict[str, str]:
        found = re.findall(r"\[Response ?([A-Z]?)\]\n(.*?)\n\n(?=\[)", prompt, re.DOTALL)
        return dict(found)

    return read
