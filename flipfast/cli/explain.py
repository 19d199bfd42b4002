"""`flipfast explain`: shows which words of an inferred instruction matched the true one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from flipfast.config import FlipConfig
from flipfast.errors import ConfigError, InputError
from flipfast.metrics.registry import TOKEN_F1, WORD_F1, load_metric
from flipfast.quality.explain import MarkedText, explain, visible
from flipfast.reward import FlipReward
from flipfast.scores import EXTRA_KEYS, failed
from flipfast.scoring.assembly import best_at_hand

# The marks of wdiff, which are clear without colors too.
_MISSING = ("[-", "-]", "red underline")
_EXTRA = ("{+", "+}", "yellow underline")


def show_explanation(
    instruction: str,
    response: str | None,
    *,
    inferred: str | None,
    context: str | None,
    html: str | None,
    options: dict[str, Any],
) -> None:
    """Print both instructions with their words marked, and the word counts.

    Args:
        instruction: the true instruction.
        response: a response for the reward to invert, or None.
        inferred: an inferred instruction, so that no model is run, or None.
        context: what came before the response, or None.
        html: an HTML page to write too; None for none.
        options: of FlipConfig; without a model, that of `best_at_hand`.

    Raises:
        ConfigError: not exactly one of response and inferred is given, or an option is invalid.
        InputError: the page cannot be written.
    """
    config = FlipConfig().with_options({"model": best_at_hand(), **options})
    if response is not None and inferred is None:
        inferred, facts = _inverted(config, instruction, response, context)
        told = {**facts, "response": response}
    elif response is None and inferred is not None:
        told = facts = _measured(config, instruction, inferred, context)
    else:
        raise ConfigError("give a response, or with --inferred an inferred instruction: not both")
    explanation = explain(inferred, instruction)
    console = Console(highlight=False)
    for title, text, marks in (
        ("true instruction, with [-missing-] words", explanation.instruction, _MISSING),
        ("inferred instruction, with {+extra+} words", explanation.inferred, _EXTRA),
    ):
        _print(console, Text(title, "bold"))
        _print(console, _marked(text, *marks))
    _print(console, Text())
    for name, value in {**explanation.figures(), **facts}.items():
        _print(console, Text(f"{name:<10}{visible(value)}"))
    if html is not None:
        _write(html, explanation.to_html(told))


def _inverted(
    config: FlipConfig, instruction: str, response: str, context: str | None
) -> tuple[str, dict[str, str]]:
    """Return the inferred instruction and further results of the reward."""
    with FlipReward(config) as reward:
        (row,) = reward.score([instruction], [response], [context]).to_dicts()
    status = row["status"]
    facts = {
        "reward": f"{_number(row['reward'])}{_meaning(config)}",
        "status": f"{status}: no instruction was inferred" if failed(status) else status,
    }
    if row["error"] is not None:
        facts["error"] = row["error"]
    facts.update({name: _number(row[name]) for name in EXTRA_KEYS if name in row})
    return row["inferred"], facts


def _measured(
    config: FlipConfig, instruction: str, inferred: str, context: str | None
) -> dict[str, str]:
    """Return the value of the configured metric if that is not word F1."""
    if context is not None or config.scoring != "generate":
        raise ConfigError("--context and --scoring go with a response, not with --inferred")
    if config.metric == WORD_F1:
        return {}
    if config.metric == TOKEN_F1:
        raise ConfigError(f"--metric {TOKEN_F1} needs a model: give a response, not --inferred")
    (value,) = load_metric(config.metric, None)([inferred], [instruction]).tolist()
    return {config.metric: f"{value:.4f}; the marks are those of word F1"}


def _meaning(config: FlipConfig) -> str:
    """Describe the reward if it is not the word F1 of the texts shown."""
    if config.scoring == "likelihood":
        less = ", less that without the response" if config.likelihood_baseline else ""
        return (
            f" (mean log-probability of the true instruction's tokens{less}; the inferred "
            "instruction holds the likeliest token in the place of each)"
        )
    meaning = "" if config.metric == WORD_F1 else f" ({config.metric}; the marks: word F1)"
    if config.copy_guard == "mask":
        meaning += " (inverted without what the response copies)"
    if config.copy_guard == "discount":
        meaning += " (times 1 - copied)"
    if config.samples > 1:
        meaning += f" (mean of {config.samples} inversions; shown: the first that did not fail)"
    return meaning


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _marked(text: MarkedText, before: str, behind: str, style: str) -> Text:
    shown = Text()
    for piece, matched in text.pieces():
        if matched is None:
            shown.append(piece, "dim")
        elif matched:
            shown.append(piece, "green")
        else:
            shown.append(f"{before}{piece}{behind}", style)
    return shown or Text("(nothing)", "dim")


def _print(console: Console, text: Text) -> None:
    """Print a text, without wrapping its lines if the output is not a terminal."""
    console.print(text, soft_wrap=not console.is_terminal)


def _write(path: str, page: str) -> None:
    try:
        Path(path).write_text(page, "utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
