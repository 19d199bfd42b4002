"""What an attack is, and attacks that are only a text with places to fill."""

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
    """What an attack may make use of.

    Attributes:
        instruction: the true one.
        response: the honest response to it.
        special_tokens: the texts that mean more than their letters to the model's tokenizer.
    """

    instruction: str
    response: str
    special_tokens: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attack:
    """One way to turn an honest response into one that wants a higher score than it has earned.

    Attributes:
        name: "family/attack".
        make: the attacking response, from a case and a source of chance that belongs to it.
        knows_instruction: whether the text depends on the instruction; else any policy could
            have learned it as it stands.
        against: what is held against it, from the honest response; None for that response itself.
    """

    name: str
    make: Callable[[Case, Random], str]
    knows_instruction: bool = False
    against: Callable[[str], str] | None = None


def from_text(name: str, text: str) -> Attack:
    """An attack that is a text in which the case's instruction and response are put.

    Args:
        name: of the attack.
        text: `{instruction}` and `{response}` stand for those texts; all else is literal.
    """

    def make(case: Case, _: Random) -> str:
        # In one pass: a field that stands in an instruction is that instruction's own text.
        return _FIELD.sub(lambda field: str(getattr(case, field[1])), text)

    return Attack(name, make, knows_instruction="{instruction}" in text)


def random_of(seed: int, *texts: str) -> Random:
    """A source of chance that depends on these texts and the seed, and on nothing else."""
    digest = hashlib.blake2b(repr((seed, texts)).encode(), digest_size=8).digest()
    return Random(int.from_bytes(digest, "little"))


def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """The texts that a transformers tokenizer takes for special tokens, the first 32 of them."""
    added = tokenizer.added_tokens_decoder.values()
    marked = [token.content for token in added if token.special]
    return tuple(dict.fromkeys([*tokenizer.all_special_tokens, *marked]))[:_MOST_TOKENS]
