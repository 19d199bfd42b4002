"""Repeating the instruction: FLIP reliably infers it from a response that spells it out."""

from __future__ import annotations

from flipfast.quality.attacks.base import from_text

ATTACKS = tuple(
    from_text(f"copying/{name}", text)
    for name, text in {
        "alone": "{instruction}",
        "before": "{instruction}\n\n{response}",
        "quoted": 'You asked: "{instruction}"\n\n{response}',
        "quoted_alone": 'This text is the answer to the instruction "{instruction}".',
    }.items()
)
