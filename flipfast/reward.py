"""FlipReward: texts in, rewards out."""

from __future__ import annotations

import hashlib
import logging
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flipfast.assembly import assemble
from flipfast.backends import Inversion, InversionRequest, Inverter
from flipfast.config import FlipConfig
from flipfast.errors import InputError
from flipfast.metrics import overlap_f1
from flipfast.parsing import extract_instruction
from flipfast.prompts.conversation import (
    completion_text,
    final_answer,
    split_messages,
    split_system,
)
from flipfast.prompts.rendering import RenderedPrompt
from flipfast.scores import ScoreBatch, ScoreStats

__all__ = ["FlipReward", "ScoreBatch"]

_log = logging.getLogger(__name__)

_FAILURES = ("empty", "unparsed", "error")
_CUT = "+response_cut"


@dataclass
class _Row:
    """One row on its way from texts to a reward."""

    instruction: str = ""
    prompt: RenderedPrompt | None = None
    error: str | None = None
    inferred: str = ""
    status: str = "error"
    n_output_tokens: int = 0


class FlipReward:
    """The FLIP reward (arXiv 2602.13551), callable as a TRL reward function.

    A model infers the instruction from a response; the reward is the word-level F1 between the
    inferred and the true instruction. It tells whether a response is about what was asked, not
    whether it is right.

    Args:
        model: "embedded", a local folder, a hub name, or a FlipConfig; None keeps the config's.
        config: the options to start from.
        inverter: a loaded inverter to share, instead of loading the model here.
        options: single options of FlipConfig that override it.

    Raises:
        ConfigError: an option that cannot be used.
        ModelLoadError: the model cannot be loaded.
    """

    __name__ = "flip_reward"  # TRL names the reward's metrics by it

    def __init__(
        self,
        model: str | Path | FlipConfig | None = None,
        *,
        config: FlipConfig | None = None,
        inverter: Inverter | None = None,
        **options: Any,
    ) -> None:
        if isinstance(model, FlipConfig):
            config = model
        elif model is not None:
            options["model"] = str(model)
        self.config = (config or FlipConfig()).with_options(options)
        self._owns_inverter = inverter is None
        self._parts = assemble(self.config, inverter)

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any
    ) -> list[float | None]:
        """Score a batch as TRL's trainers ask for it.

        Of a completion, the part that the published RL code scores is scored: what stands in
        `<answer>` tags or after `</think>`, else the whole.

        Args:
            prompts: strings, or lists of messages; of these the last user turn is the instruction
                and the turns before it are the context.
            completions: strings, or lists of messages, of which the last assistant turn counts.
            kwargs: the trainer's other columns and helpers, not used.

        Returns:
            One reward a row; a row that cannot be scored has `on_failure`.

        Raises:
            InputError: the two differ in length.
        """
        started = time.perf_counter()
        _check_lengths(prompts=prompts, completions=completions)
        batch = self._score(self._rows(self._chat_texts, prompts, completions), started)
        errors = [error for error in batch.errors if error is not None]
        if errors:  # a list of rewards has no room for them
            _log.warning("%d of %d rows have no reward: %s", len(errors), len(batch), errors[0])
        return batch.rewards

    def score(
        self,
        instructions: Sequence[str],
        responses: Sequence[str],
        contexts: Sequence[str | None] | None = None,
        *,
        on_progress: Callable[[int], None] | None = None,
    ) -> ScoreBatch:
        """Score a batch of texts.

        Args:
            instructions: the true instructions (or system prompts, with target="system").
            responses: one response each.
            contexts: what came before each response, or None.
            on_progress: called now and then with the number of rows done.

        Raises:
            InputError: the sequences differ in length, or one of them is a single string. A row
                of a wrong type is no such error: it gets the status "error".
        """
        started = time.perf_counter()
        columns = {"instructions": instructions, "responses": responses}
        _check_lengths(**columns, **({} if contexts is None else {"contexts": contexts}))
        given = [None] * len(instructions) if contexts is None else contexts
        rows = self._rows(_checked_texts, instructions, responses, given)
        return self._score(rows, started, on_progress)

    def close(self) -> None:
        """Give the model's memory back, unless the inverter is a shared one."""
        if self._owns_inverter:
            self._parts.inverter.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if not self._owns_inverter:
            raise TypeError(
                "a FlipReward with a shared inverter cannot be pickled: give it a model"
            )
        return FlipReward, (self.config,)  # the model is loaded again at the other end

    def _rows(
        self, read: Callable[..., tuple[str, str, str | None]], *columns: Sequence[Any]
    ) -> list[_Row]:
        """Read and render every row; bad input becomes the row's error."""
        rows = []
        for entries in zip(*columns, strict=True):
            try:
                instruction, response, context = read(*entries)
            except InputError as error:
                rows.append(_Row(error=str(error)))
            else:
                rows.append(_Row(instruction, self._parts.renderer.render(response, context)))
        return rows

    def _chat_texts(self, prompt: Any, completion: Any) -> tuple[str, str, str | None]:
        response = final_answer(completion_text(completion))
        if isinstance(prompt, str):
            return prompt, response, None
        split = split_system if self.config.target == "system" else split_messages
        instruction, context = split(prompt)
        return instruction, response, context

    def _score(
        self,
        rows: list[_Row],
        started: float,
        on_progress: Callable[[int], None] | None = None,
    ) -> ScoreBatch:
        runnable = [(row, row.prompt) for row in rows if row.prompt is not None]
        requests = [
            InversionRequest(prompt.token_ids, _seed(self.config.seed, prompt.token_ids))
            for _, prompt in runnable
        ]
        inversions = self._parts.inverter.generate(requests, self._parts.sampling, on_progress)
        for (row, prompt), inversion in zip(runnable, inversions, strict=True):
            self._read(row, inversion, cut=prompt.cut)
        return self._batch(rows, started)

    def _read(self, row: _Row, inversion: Inversion, *, cut: bool) -> None:
        """Take the instruction out of the model's output."""
        row.n_output_tokens = len(inversion.output_ids)
        if inversion.finish_reason == "error":
            row.error = inversion.error
        else:
            parser = self.config.parser if self._parts.template.wants_json else "plain"
            row.inferred, row.status = extract_instruction(inversion.text, parser)
            ended = inversion.finish_reason == "stop"
            if parser == "plain" and row.status not in _FAILURES and not ended:
                row.status = "truncated"
        if cut:
            row.status += _CUT

    def _batch(self, rows: list[_Row], started: float) -> ScoreBatch:
        table = overlap_f1([r.inferred for r in rows], [r.instruction for r in rows]).tolist()
        failed = [row.status.removesuffix(_CUT) in _FAILURES for row in rows]
        scores = [
            (self.config.on_failure, None, None) if bad else tuple(triple)
            for bad, triple in zip(failed, table, strict=True)
        ]
        n_prompt = [len(row.prompt.token_ids) if row.prompt else 0 for row in rows]
        n_output = [row.n_output_tokens for row in rows]
        seconds = time.perf_counter() - started
        return ScoreBatch(
            rewards=[score[0] for score in scores],
            precision=[score[1] for score in scores],
            recall=[score[2] for score in scores],
            inferred=[row.inferred for row in rows],
            status=[row.status for row in rows],
            n_prompt_tokens=n_prompt,
            n_output_tokens=n_output,
            errors=[row.error for row in rows],
            stats=ScoreStats(
                n_rewards=len(rows),
                n_failed=sum(failed),
                seconds=seconds,
                rewards_per_s=len(rows) / seconds,
                tokens_per_s=(sum(n_prompt) + sum(n_output)) / seconds,
            ),
        )


def _seed(seed: int, prompt_ids: list[int]) -> int:
    """64 bits from what the sample may depend on, so that neighbours have no say in it."""
    content = array("q", [seed, *prompt_ids]).tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _check_lengths(**columns: Sequence[Any]) -> None:
    for name, column in columns.items():
        if isinstance(column, (str, bytes)) or not hasattr(column, "__len__"):
            raise InputError(f"{name} must be a list with one entry a row, got {column!r:.80}")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{n} {name}" for name, n in lengths.items())
        raise InputError(f"got {shown}: there must be as many of each")


def _checked_texts(
    instruction: object, response: object, context: object
) -> tuple[str, str, str | None]:
    for name, text in (("instruction", instruction), ("response", response)):
        if not isinstance(text, str):
            raise InputError(f"the {name} must be a string, got {text!r:.80}")
    if context is not None and not isinstance(context, str):
        raise InputError(f"the context must be a string or None, got {context!r:.80}")
    return instruction, response, context  # type: ignore[return-value]  # checked above
