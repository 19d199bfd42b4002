"""Removes what models wrap around an answer: think blocks, tags, code fences, labels, quotes.

Every function is linear in the length of the text, whatever it contains.
"""

import re

THINK, THINK_END = "<think>", "</think>"

_FENCE_START = re.compile(r"```(?:json\b|[A-Za-z0-9_+-]*(?=[\s{\[]))?", re.IGNORECASE)
# On its own line or before the text, in markdown or not; bounds keep time linear on hostile text.
_LABEL_END = r"[*_ ]{0,5}(?::[*_]{0,3}|\n)\s*"
_INFERRED_LABEL = re.compile(
    r"(?:\A|\n)[\s*#_]{0,20}inferred[ _-]instruction[*_ ]{0,5}(?:[:=\uff1a][*_]{0,3}|\n)\s*",
    re.IGNORECASE,
)
_LABEL = re.compile(
    rf"[\s*#_]{{0,20}}(?:the )?(?:(?:inferred|original|likely|user(?:'s)?)[ _]){{0,3}}"
    rf"(?:instruction|prompt)(?: is| was)?{_LABEL_END}",
    re.IGNORECASE,
)
# A word, up to the next white space, that can belong to such a label, or one without letters.
_IN_LABEL = re.compile(
    r"[\W_]*(?:(?:the|inferred|original|likely|user|instruction|prompt|is|was)(?![^\W_])|\Z)",
    re.IGNORECASE,
)
_QUOTE_PAIRS = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019"}
_TRIPLE_QUOTES = ('"""', "'''")


def drop_closed_think(text: str) -> str:
    """Remove every closed think block and the white space after it."""
    kept = []
    start = 0
    while (opened := text.find(THINK, start)) >= 0:
        closed = text.find(THINK_END, opened)
        if closed < 0:
            break
        kept.append(text[start:opened])
        start = _skip_space(text, closed + len(THINK_END))
    kept.append(text[start:])
    return "".join(kept)


def drop_answer_tags(text: str) -> str:
    """Remove the tags `<answer>` and `</answer>`, keeping the text between them."""
    return text.replace("<answer>", "").replace("</answer>", "")


def drop_leading_think(text: str) -> tuple[str, bool]:
    """Cut off the think blocks that a text begins with.

    Returns (rest, is_open): is_open means that a block never closes, and rest is then the inside of
    that block. Later blocks stay: they may be quoted inside the instruction.
    """
    start = 0
    while text.startswith(THINK, opened := _skip_space(text, start)):
        closed = text.find(THINK_END, opened)
        if closed < 0:
            return text[opened + len(THINK) :], True
        start = _skip_space(text, closed + len(THINK_END))
    return text[start:], False


def leaves_think_open(text: str) -> bool:
    """Return whether a text ends inside a think block."""
    return text.rfind(THINK) > text.rfind(THINK_END)


def drop_think(text: str, think_open: bool = True) -> str:
    """Remove every closed think block, and everything up to a `</think>` opened elsewhere.

    think_open: whether the prompt may have opened a block, as some chat templates do, so that the
    output only closes it. If not, such a `</think>` closes nothing, and only the tag is removed.
    """
    text = drop_closed_think(text)
    return text.rpartition(THINK_END)[2] if think_open else text.replace(THINK_END, "")


def strip_fence(text: str) -> str:
    """Strip white space and one enclosing code fence, with its language, from a text."""
    text = text.strip()
    opened = _FENCE_START.match(text)
    if opened:
        text = text[opened.end() :].removesuffix("```").strip()
    return text


def after_inferred_label(text: str) -> str | None:
    """Return what follows the last label "Inferred instruction:" that begins a line, or None."""
    end = None
    for match in _INFERRED_LABEL.finditer(text):
        end = match.end()
    return None if end is None else text[end:]


def strip_label(text: str) -> str:
    """Strip a leading label such as "Instruction:" or "The original prompt is:" from a text."""
    match = _LABEL.match(text)
    return text[match.end() :] if match else text


def may_be_in_label(chunk: str) -> bool:
    """Return whether a chunk between white space may belong to a label that `strip_label` cuts.

    Assumes that all chunks before it may.
    """
    return bool(_IN_LABEL.match(chunk))


def strip_quotes(text: str) -> str:
    """Strip white space and one pair of enclosing quotes, single or triple, from a text.

    Quotes that also occur inside stay: `"War" and "Peace"` is not one quoted text.
    """
    text = text.strip()
    for quotes in _TRIPLE_QUOTES:
        inside = text[len(quotes) : -len(quotes)]
        if text == f"{quotes}{inside}{quotes}" and inside and quotes not in inside:
            return inside.strip()
    closing = _QUOTE_PAIRS.get(text[:1])
    inside = text[1:-1]
    if len(text) > 1 and text[-1] == closing and closing not in inside and text[0] not in inside:
        return inside.strip()
    return text


def _skip_space(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start
