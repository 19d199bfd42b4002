"""Rewards on a model that answers from a script."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from flipfast import FlipReward
from flipfast.backends import InversionRequest
from tests.prompts.conftest import make_tokenizer  # noqa: F401  (a fixture)
from tests.scripted import ScriptedInverter


@pytest.fixture
def scripted(make_tokenizer: Any) -> Callable[..., FlipReward]:  # noqa: F811
    """A function from a script (prompt, request -> instruction) and options to a reward."""

    def build(script: Callable[[str, InversionRequest], str], **options: Any) -> FlipReward:
        def answer(prompt: str, request: InversionRequest) -> str:
            text = script(prompt, request)
            return json.dumps({"INFERRED INSTRUCTION": text}) if "JSON" in prompt else text

        inverter = ScriptedInverter(make_tokenizer(), answer)
        return FlipReward(inverter=inverter, **options)

    return build
