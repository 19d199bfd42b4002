"""The wording of the prompts, as `str.format` templates.

The setups follow the FLIP paper (arXiv 2602.13551) in what they ask for, in which order, and in
the keys of the JSON object; the wording is this project's own.
"""

from __future__ import annotations

from dataclasses import dataclass

from flipfast.errors import ConfigError

STYLES = ("standalone", "conversation", "direct")
TARGETS = ("instruction", "system")

_JSON_SHAPE = '{{"REASONING": "...", "INFERRED INSTRUCTION": "..."}}'


@dataclass(frozen=True)
class PromptTemplate:
    """One prompt setup as `str.format` templates.

    Attributes:
        style: the style's name, or the folder the texts were loaded from.
        system: the system message, or None.
        user: the user message; contains `{response}` once.
        user_with_context: the same with `{context}` once, before the response; None if the setup
            has no place for a context.
        wants_json: whether the model is asked for the JSON object (else only for the text).
    """

    style: str
    system: str | None
    user: str
    user_with_context: str | None
    wants_json: bool


def _standalone(wanted: str, given: str) -> PromptTemplate:
    system = (
        "You work backwards from answers to requests. You are shown what an AI assistant wrote "
        f"and you name the one {wanted} that most likely led to it. Say what was asked for, in "
        "which form and within which limits, in few words. Rely on nothing but the text shown, "
        "and leave out details that only this particular answer happened to choose. First note "
        f"in a sentence what gives the {wanted} away, then state it. Answer with a JSON object: "
        + _JSON_SHAPE
    )
    tail = (
        f"[Response]\n{{response}}\n\n[Most likely {wanted}]\nAnswer with the JSON object only: "
        + _JSON_SHAPE
    )
    context = f"[{given}]\n{{context}}\n\n"
    return PromptTemplate("standalone", system, tail, context + tail, wants_json=True)


def _conversation(wanted: str, given: str) -> PromptTemplate:
    task = (
        f"Find out which {wanted} an AI assistant was following when it wrote the answer below. "
        "Weigh what the answer does, its form and its limits, and name the single most likely "
        f"{wanted}: short, specific, and claiming nothing that the answer does not show. Note in "
        "a sentence how you got there before you state it.\n\n"
    )
    answer = (
        f"[AI Answer]\n{{response}}\n\n[The {wanted} behind it]\nAnswer with one JSON object: "
        + _JSON_SHAPE
    )
    context = f"[{given}]\n{{context}}\n\n"
    return PromptTemplate(
        "conversation", None, task + answer, task + context + answer, wants_json=True
    )


def _direct(wanted: str, given: str) -> PromptTemplate:
    task = f"Which {wanted} does this response follow? Write the {wanted} alone.\n\n"
    answer = "[Response]\n{response}"
    context = f"[{given}]\n{{context}}\n\n"
    return PromptTemplate("direct", None, task + answer, task + context + answer, wants_json=False)


_BUILDERS = {"standalone": _standalone, "conversation": _conversation, "direct": _direct}
_WORDS = {
    "instruction": ("instruction", "Conversation History"),
    "system": ("system prompt", "User Prompt"),
}


def get_template(style: str, target: str = "instruction") -> PromptTemplate:
    """Return this project's own prompt in a style.

    Args:
        style: "standalone" (system and user message, as for RewardBench 2 and best-of-N),
            "conversation" (one user message with the conversation before the response, as for
            RL), or "direct" (one short user message that asks only for the instruction).
        target: "instruction", or "system" to infer the system prompt with the user prompt as
            context.

    Raises:
        ConfigError: the style or target is unknown.
    """
    if style not in _BUILDERS:
        raise ConfigError(f"unknown prompt style {style!r}: use one of {', '.join(STYLES)}")
    if target not in _WORDS:
        raise ConfigError(f"unknown inference target {target!r}: use one of {', '.join(TARGETS)}")
    return _BUILDERS[style](*_WORDS[target])
