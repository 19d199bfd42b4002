"""Reads attacks written by the user."""

from __future__ import annotations

from pathlib import Path

from flipfast.errors import InputError
from flipfast.quality.attacks.base import Attack, from_text


def read_strings(path: str) -> list[Attack]:
    r"""Read one attack per line, named "strings/<line number>"; empty lines are left out.

    Args:
        path: a UTF-8 file. `{instruction}` and `{response}` stand for those texts and `\n` for a
            line break; all else is literal, including leading and trailing spaces.

    Raises:
        InputError: the file cannot be read, or holds no attack.
    """
    try:
        text = Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    attacks = [
        from_text(f"strings/{number}", line.replace("\\n", "\n"))
        for number, line in enumerate(text.split("\n"), start=1)
        if line
    ]
    if not attacks:
        raise InputError(f"{path} holds no attack: write one a line")
    return attacks
