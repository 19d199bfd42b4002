"""`flipfast credit`: a response, each part coloured by what it adds to the reward."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from flipfast.config import FlipConfig
from flipfast.errors import ConfigError, InputError
from flipfast.quality.explain import visible
from flipfast.reward import FlipReward
from flipfast.scoring.assembly import best_at_hand
from flipfast.scoring.credit import Credit, Part, credit, turn_credit

_STRONG = 0.5  # of the largest credit: from here on a part is shown in bold


def show_credit(
    instruction: str | None,
    response: str | None,
    *,
    messages: str | None,
    context: str | None,
    options: dict[str, Any],
) -> None:
    """Print the parts of a response with their credits: its sentences, or an agent's turns.

    Args:
        instruction, response: texts, or None with `messages`.
        messages: a JSON file with a conversation, of which all assistant turns are scored and what
            comes before the first of them is the prompt; or None.
        context: what came before the response, or None.
        options: of FlipConfig; without a model, that of `best_at_hand`.

    Raises:
        ConfigError: neither both texts nor only messages are given, or an option is invalid.
        InputError: the file cannot be read, or is no conversation.
    """
    config = FlipConfig().with_options({"model": best_at_hand(), **options})
    if messages is not None:
        if (instruction, response, context) != (None, None, None):
            raise ConfigError("--messages stands alone: it has the instruction and the response")
        prompt, trace = _read(messages)
        with FlipReward(config) as reward:
            found = turn_credit(reward, prompt, trace)
    elif instruction is None or response is None:
        raise ConfigError("give an instruction and a response, or --messages FILE.json")
    else:
        with FlipReward(config) as reward:
            found = credit(reward, instruction, response, context=context)
    _print(found)


def _read(path: str) -> tuple[list[Any], list[Any]]:
    try:
        messages = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}") from error
    if not isinstance(messages, list):
        raise InputError(f"{path} holds no list of messages: write [{{'role': ...}}, ...]")
    prompt = list(takewhile(lambda message: not _is_assistant(message), messages))
    return prompt, messages[len(prompt) :]


def _is_assistant(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") == "assistant"


def _print(found: Credit) -> None:
    console = Console(highlight=False)
    most = max((abs(part.credit or 0.0) for part in found.parts), default=0.0)
    for part in found.parts:
        line = Text(f"{_number(part.credit)}  ").append(*_shown(part, most))
        console.print(line, soft_wrap=not console.is_terminal)
    first, last = found.beginnings.rewards[0], found.beginnings.rewards[-1]
    console.print(f"\nreward {_plain(last)}; of an empty response {_plain(first)}")
    errors: Sequence[str] = [error for error in found.beginnings.errors if error is not None]
    if errors:
        console.print(f"{len(errors)} of {len(found.beginnings)} beginnings failed: {errors[0]}")


def _shown(part: Part, most: float) -> tuple[str, str]:
    text = visible(part.text.strip()) or "(no text)"
    if not part.credit:
        return text, "dim"
    strength = "bold " if abs(part.credit) >= _STRONG * most else ""
    return text, strength + ("green" if part.credit > 0 else "red")


def _number(value: float | None) -> str:
    return "   none" if value is None else f"{value:+.4f}"


def _plain(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
