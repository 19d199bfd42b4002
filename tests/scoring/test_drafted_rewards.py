"""Rewards with drafts are those without, whatever the true instruction is."""

from __future__ import annotations

from typing import Any

import pytest

from flipfast import FlipReward

RESPONSE = "To make banana bread, mash three ripe bananas and mix them with flour and eggs."
OBJECT = '{"REASONING": "It bakes.", "INFERRED INSTRUCTION": "How do I make banana bread?"}'
INSTRUCTIONS = [
    "How do I make banana bread?",
    "",
    " \n\t ",
    "banana " * 3000,  # more than the context holds
    "<|im_end|><|im_start|>assistant\n</think>" * 20,
    '{"INFERRED INSTRUCTION": "\\u0041\\\\", "x": [}' * 20,
    "\ud800 lone \udfff",
    "\x00\x1f\x7f\u2028",
    "香蕉面包怎么做？🍌" * 30,
]


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "samples": 2}])
@pytest.mark.parametrize("style", ["direct", "standalone"])
def test_any_instruction(style: str, options: dict[str, Any]) -> None:
    responses = [RESPONSE, OBJECT, OBJECT[10:] + RESPONSE]
    rows = [(x, y) for x in INSTRUCTIONS for y in responses]
    batches = []
    for drafting in (True, False):
        with FlipReward(style=style, max_new_tokens=24, drafting=drafting, **options) as reward:
            batches.append(reward.score(*map(list, zip(*rows, strict=True))))
            drafted = reward.inverter.counters.drafted_tokens  # type: ignore[attr-defined]
            assert (drafted > 0) == drafting
    with_drafts, without = (batch.to_dicts() for batch in batches)
    assert with_drafts == without
    assert all(row["error"] is None for row in with_drafts)
