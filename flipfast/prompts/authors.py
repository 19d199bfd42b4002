"""Loads the FLIP authors' own prompt files from a given folder."""

from __future__ import annotations

import string
from pathlib import Path

from flipfast.errors import ConfigError
from flipfast.prompts.templates import PromptTemplate

_SYSTEM, _USER, _CONVERSATION = "FLIP_SYSTEM.prompt", "FLIP_USER.prompt", "FLIP_RL.prompt"


def load_authors_template(folder: str | Path, style: str = "standalone") -> PromptTemplate:
    """Load the published wording.

    Args:
        folder: holds `FLIP_SYSTEM.prompt` and `FLIP_USER.prompt` (style "standalone", the files
            of github.com/yikee/FLIP under `prompts/`), or `FLIP_RL.prompt` (style
            "conversation": the text of `general_flip_template` in that repository's open-instruct
            fork, saved as a file). The texts are `str.format` templates with the fields
            `{response}` or `{output}`, and `{context}`; they are read verbatim as UTF-8.
        style: "standalone" or "conversation".

    Raises:
        ConfigError: the style is another one, a file is missing or unreadable, or a text does not
            have the right fields.
    """
    folder = Path(folder).expanduser()
    if style == "standalone":
        user = _user_text(folder / _USER)
        with_context = user if "{context}" in user else None
        return PromptTemplate(str(folder), _read(folder / _SYSTEM), user, with_context, True)
    if style == "conversation":
        text = _user_text(folder / _CONVERSATION)
        if "{context}" not in text:
            raise ConfigError(f"{folder / _CONVERSATION} has no {{context}} field")
        # The published code leaves the heading in place when there is no history.
        return PromptTemplate(str(folder), None, text.replace("{context}", ""), text, True)
    raise ConfigError(
        f"the authors have no prompt of style {style!r}: use standalone or conversation"
    )


def _user_text(path: Path) -> str:
    text = _read(path).replace("{output}", "{response}")
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise ConfigError(f"{path} is not a text for str.format: {error}") from error
    if fields.count("response") != 1 or not set(fields) <= {"response", "context"}:
        raise ConfigError(
            f"{path} has the fields {fields}: expected one {{response}} or {{output}}, and "
            "at most {context} beside it"
        )
    return text


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the prompt file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the prompt file {path} is not UTF-8: {error}") from error
