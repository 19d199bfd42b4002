"""The definition of an attack, and attacks made from a text with placeholders."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

_MOST_TOKENS = 32  # some vocabularies reserve hundreds of special tokens
_FIELD = re.compile(r"\{(instruction|response)\}")


@dataclass(frozen=True)
class Case:
    """What an attack may use.

    Attributes:
        instruction: the true instruction.
        response: the honest response to it.
        special_tokens: the texts of the model tokenizer's special tokens.
    """

    instruction: str
    response: str
    special_tokens: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attack:
    """One way to turn an honest response into one that seeks an undeserved score.

    Attributes:
        name: "family/attack".
        make: makes the attacking response from a case and the case's own random generator.
        knows_instruction: whether the text depends on the instruction; if not, any policy could
            learn it verbatim.
        against: makes the text to compare it with from the honest response; None for that response
            itself.
    """

    name: str
    make: Callable[[Case, Random], str]
    knows_instruction: bool = False
    against: Callable[[str], str] | None = None


def from_text(name: str, text: str) -> Attack:
    """Make an attack from a text with placeholders for the case's instruction and response.

    Args:
        name: of the attack.
        text: `{instruction}` and `{response}` stand for those texts; all else is literal.
    """

    def make(case: Case, _: Random) -> str:
        # In one pass, so that a placeholder inside an instruction stays literal.
        return _FIELD.sub(lambda field: str(getattr(case, field[1])), text)

    return Attack(name, make, knows_instruction="{instruction}" in text)


def random_of(seed: int, *texts: str) -> Random:
    """Make a random generator that depends only on the seed and these texts."""
    digest = hashlib.blake2b(repr((seed, texts)).encode(), digest_size=8).digest()
    return Random(int.from_bytes(digest, "little"))


def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Return the texts of a transformers tokenizer's special tokens, the first 32 of them."""
    added = tokenizer.added_tokens_decoder.values()
    marked = [token.content for token in added if token.special]
    return tuple(dict.fromkeys([*tokenizer.all_special_tokens, *marked]))[:_MOST_TOKENS]
