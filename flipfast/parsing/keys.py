"""Ranks the keys of a JSON object that may hold the inferred instruction."""

import re

PUBLISHED_KEYS = (
    "INFERRED INSTRUCTION",
    "inferred_instruction",
    "Inferred Instructcion",
    "inferred instruction",
    "Inferred_Instruction",
)
# Ranks after the published keys: the same words in another spelling, and any "instruction".
SPELLING = len(PUBLISHED_KEYS)
GENERIC = SPELLING + 1

_NOT_LETTERS = re.compile(r"[^a-z]+")


def key_rank(key: str) -> int | None:
    """Return the rank of a key, 0 the best; None if it does not name an instruction.

    Apart from the published keys, only letters count, in any case. A key that begins like
    "inferred" and ends like "instruction", with about as many letters, counts as a misspelling.
    """
    if key in PUBLISHED_KEYS:
        return PUBLISHED_KEYS.index(key)
    letters = _NOT_LETTERS.sub("", key.lower())
    inferred = letters.startswith("inf")
    if inferred and letters.endswith(("ion", "ions")) and 14 <= len(letters) <= 24:
        return SPELLING
    if "instruc" not in letters:
        return None
    return SPELLING if inferred else GENERIC
