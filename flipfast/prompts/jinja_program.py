"""Runs a chat template so that only the messages and our options decide what it writes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from flipfast.checks import brief
from flipfast.errors import ModelLoadError

# All functions that a template finds, besides strftime_now. Not `lipsum`, which writes at random,
# nor whatever a later version may add.
_FUNCTIONS = ("cycler", "dict", "joiner", "namespace", "raise_exception", "range")
_LONGEST_REASON = 300
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_COMPOSITES = {
    "c": "%a %b %e %H:%M:%S %Y",
    "r": "%I:%M:%S %p",
    "x": "%m/%d/%y",
    "X": "%H:%M:%S",
}


class RefusalError(Exception):
    """A template does not render some messages as they are; says why, in one line."""


class JinjaProgram:
    """A chat template, compiled.

    It sees the messages, `add_generation_prompt`, the switches for thinking, the date, empty
    `tools` and `documents`, and the special tokens that the tokenizer has now; later changes to
    the tokenizer have no effect.

    Attributes:
        name: "the chat template of ...", for messages.

    Args:
        tokenizer: a transformers tokenizer.
        source: the template's text.
        thinking: leave the model's thinking on, if the template has a switch for it.
        date: what the template takes for today, such as "2024-07-26".

    Raises:
        ModelLoadError: the text is no template.
    """

    def __init__(self, tokenizer: Any, source: str, *, thinking: bool, date: str) -> None:
        self.name = _name(tokenizer)
        now = datetime.fromisoformat(date)
        self._variables: dict[str, Any] = {
            **tokenizer.special_tokens_map,
            "tools": None,
            "documents": None,
            "enable_thinking": thinking,  # the switch of Qwen 3 and most others
            "thinking": thinking,  # the switch of Granite and DeepSeek
            "date_string": format_date(now, "%d %b %Y"),  # as the templates of Llama 3 write it
            "strftime_now": lambda form: format_date(now, form),
        }
        try:
            self._template = _environment().from_string(source)
        except Exception as error:  # mostly a TemplateSyntaxError
            raise ModelLoadError(f"{self.name} cannot be read: {_one_line(error)}") from error

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True
    ) -> str:
        """Write a conversation.

        Raises:
            RefusalError: the template raises an error.
        """
        try:
            text = self._template.render(
                messages=messages, add_generation_prompt=add_generation_prompt, **self._variables
            )
        except Exception as error:  # a template is code and can fail in any way
            raise RefusalError(f"{self.name} refuses the messages: {_one_line(error)}") from error
        return str(text)


def load_program(tokenizer: Any, *, thinking: bool, date: str) -> JinjaProgram | None:
    """Compile a tokenizer's chat template, of several the one named "default"; None without any.

    Raises:
        ModelLoadError: it is no template, or none of several has that name.
    """
    found = tokenizer.chat_template
    if isinstance(found, Mapping) and found:
        if "default" not in found:
            raise ModelLoadError(
                f"{_name(tokenizer)} is one of {', '.join(map(repr, sorted(found)))}, and none is "
                "named 'default': write the one to use into a chat_template.jinja in the model's "
                "folder"
            )
        found = found["default"]
    if not found:
        return None
    if not isinstance(found, str):
        raise ModelLoadError(f"{_name(tokenizer)} must be a text, not {brief(found)}")
    return JinjaProgram(tokenizer, found, thinking=thinking, date=date)


def format_date(date: datetime, form: str) -> str:
    """Return `date.strftime(form)` in English and UTC, whatever the process's locale and zone."""
    hour = "AM" if date.hour < 12 else "PM"
    words = {
        "a": _DAYS[date.weekday()][:3],
        "A": _DAYS[date.weekday()],
        "b": _MONTHS[date.month - 1][:3],
        "h": _MONTHS[date.month - 1][:3],
        "B": _MONTHS[date.month - 1],
        "p": hour,
        "P": hour.lower(),
        "s": str(round((date - datetime(1970, 1, 1)).total_seconds())),
    }
    return date.strftime(_expand(_expand(form, _COMPOSITES), words))


def _expand(form: str, known: Mapping[str, str]) -> str:
    return re.sub("%(.)", lambda found: known.get(found[1], found[0]), form)


def _environment() -> Any:
    """The sandbox in which transformers runs chat templates, without what changes by itself.

    transformers takes no other clock, so the environment is taken out of it, as vLLM does, too.
    """
    from transformers.utils import chat_template_utils

    sandbox = chat_template_utils._compile_jinja_template("").environment.overlay()
    sandbox.globals = {name: sandbox.globals[name] for name in _FUNCTIONS}
    sandbox.filters = {**sandbox.filters, "random": _refuse_chance}
    return sandbox


def _refuse_chance(*_: object, **__: object) -> NoReturn:
    raise ValueError("the filter 'random' would make a reward differ from run to run")


def _name(tokenizer: Any) -> str:
    return f"the chat template of {tokenizer.name_or_path or type(tokenizer).__name__!r}"


def _one_line(error: Exception) -> str:
    from jinja2 import TemplateError, TemplateSyntaxError

    if isinstance(error, TemplateSyntaxError):
        return f"line {error.lineno}: {error.message}"[:_LONGEST_REASON]
    reason = " ".join(str(error).split())[:_LONGEST_REASON]
    return reason if isinstance(error, TemplateError) else f"{type(error).__name__}: {reason}"
