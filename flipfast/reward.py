"""FlipReward: texts in, rewards out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from flipfast.backends import Inverter
from flipfast.config import FlipConfig, resolve
from flipfast.errors import InputError
from flipfast.progress import progress_bar
from flipfast.prompts.conversation import chat_texts, checked_texts
from flipfast.scores import BestOf, ScoreBatch, check_lengths, trainer_rewards
from flipfast.scoring.assembly import assemble
from flipfast.scoring.batches import batch_of
from flipfast.scoring.best_of import best_of
from flipfast.scoring.defences import defended
from flipfast.scoring.generation import GenerationScorer
from flipfast.scoring.likelihood import LikelihoodScorer
from flipfast.scoring.prose_warning import ProseWarning
from flipfast.scoring.samples import Row, read_row
from flipfast.watchers.pruning import Race

__all__ = ["BestOf", "FlipReward", "ScoreBatch"]


class FlipReward:
    """The FLIP reward (arXiv 2602.13551), callable as a TRL reward function.

    A model infers the instruction from a response; the reward is the word-level F1 between the
    inferred and the true instruction. It measures whether a response is about what was asked, not
    whether it is correct.

    Args:
        model: "embedded", a local folder, a hub name, or a FlipConfig; None keeps the config's.
        config: the options to start from.
        inverter: a loaded inverter to share, instead of loading the model here.
        options: FlipConfig fields that override `config`.

    Raises:
        ConfigError: an option cannot be used.
        ModelLoadError: the model cannot be loaded.
    """

    __name__ = "flip_reward"  # TRL names the reward's metrics after it

    def __init__(
        self,
        model: str | Path | FlipConfig | None = None,
        *,
        config: FlipConfig | None = None,
        inverter: Inverter | None = None,
        **options: Any,
    ) -> None:
        self.config = resolve(model, config, options)
        self._owns_inverter = inverter is None
        self._parts = parts = assemble(self.config, inverter)
        generates = self.config.scoring == "generate"
        self._generation = GenerationScorer(parts, self.config)
        self._likelihood = None if generates else LikelihoodScorer(parts, self.config)
        self._prose = ProseWarning(self.config.model)
        self._make_row = defended((self._likelihood or self._generation).row, self.config)

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any
    ) -> list[float | None]:
        """Score a batch in the format of TRL's trainers.

        Scores the same part of a completion as the published RL code: the text inside `<answer>`
        tags or after `</think>`, else the whole completion.

        Args:
            prompts: strings, or lists of messages, whose last user turn is the instruction and
                whose earlier turns are the context. Messages have role and content, or from and
                value; see `flipfast.prompts.messages`.
            completions: strings, messages, or lists of messages, whose last assistant turn is
                scored. One without a text, such as a call of a tool, has the status "contentless".
            kwargs: the trainer's other columns and helpers; ignored.

        Returns:
            One reward per row; `on_failure` for a row that cannot be scored.

        Raises:
            InputError: prompts and completions differ in length.
        """
        return trainer_rewards(self.score_chats(prompts, completions))

    def score_chats(self, prompts: Sequence[Any], completions: Sequence[Any]) -> ScoreBatch:
        """Score a batch in a trainer's format; like `__call__`, which returns only the rewards.

        Raises:
            InputError: prompts and completions differ in length.
        """
        started = time.perf_counter()
        check_lengths(prompts=prompts, completions=completions)
        return self._score(self._rows(self._chat_texts, prompts, completions), started)

    def score(
        self,
        instructions: Sequence[str],
        responses: Sequence[str | InputError],
        contexts: Sequence[str | None] | None = None,
        *,
        on_progress: Callable[[int], None] | None = None,
    ) -> ScoreBatch:
        """Score a batch of texts.

        Args:
            instructions: the true instructions (or system prompts, with target="system").
            responses: one response per instruction. An error in a response's place becomes that of
                its row, and None one with the status "contentless".
            contexts: the conversation before each response, or None.
            on_progress: called from time to time with the number of rows done.

        Raises:
            InputError: the sequences differ in length, or one of them is a single string. A row
                of the wrong type does not raise: it gets the status "error".
        """
        started = time.perf_counter()
        columns = {"instructions": instructions, "responses": responses}
        check_lengths(**columns, **({} if contexts is None else {"contexts": contexts}))
        given = [None] * len(instructions) if contexts is None else contexts
        rows = self._rows(checked_texts, instructions, responses, given)
        return self._score(rows, started, on_progress)

    def score_prefixes(
        self, instruction: str, response: str, ends: Sequence[int], context: str | None = None
    ) -> ScoreBatch:
        """Score growing prefixes of one response, for segment-level rewards.

        Each row is what `score` gives for response[:end] alone. The native engine computes what
        the prefixes share only once.

        Args:
            instruction: the true instruction.
            response: the whole response.
            ends: the prefix lengths in characters, non-decreasing, each in [0, len(response)].
            context: the conversation before the response, or None.

        Returns:
            One row per end.

        Raises:
            InputError: a text is not a string, or the ends decrease or exceed the response.
        """
        checked_texts(instruction, response, context)
        least = 0
        for end in ends:
            if not least <= end <= len(response):
                raise InputError(
                    f"end {end} of a beginning must lie in [{least}, {len(response)}]: after the "
                    "one before it and inside the response"
                )
            least = end
        n = len(ends)
        return self.score([instruction] * n, [response[:end] for end in ends], [context] * n)

    def score_best_of(
        self, instruction: str, responses: Sequence[str], context: str | None = None
    ) -> BestOf:
        """Find the response with the highest reward, the first of them on a tie.

        Picks the same response as the rewards of `score` would, with the same reward. The native
        engine may spend less time on the others: it ends an output as soon as it can no longer beat
        a finished one. Which outputs it ends, and when, may differ from call to call.

        Args:
            instruction: the true instruction.
            responses: any number. One of the wrong type gets the status "error".
            context: the conversation before each response, or None.

        Raises:
            InputError: `responses` is not a list, or the instruction or context not a string.
        """
        started = time.perf_counter()
        check_lengths(responses=responses)
        checked_texts(instruction, "", context)
        n = len(responses)
        rows = self._rows(checked_texts, [instruction] * n, responses, [context] * n)
        race = self._generation.race(instruction) if self._likelihood is None else None
        return best_of(self._score(rows, started, race=race), race)

    @property
    def takes_context(self) -> bool:
        """Whether the prompt has a place for a context; a row with one fails where it has none."""
        return self._parts.template.user_with_context is not None

    @property
    def inverter(self) -> Inverter:
        """The inverter that runs the model; the native one can sleep, wake and update weights."""
        return self._parts.inverter

    def __enter__(self) -> FlipReward:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the model's memory, unless the inverter is shared."""
        if self._owns_inverter:
            self._parts.inverter.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if not self._owns_inverter:
            raise TypeError(
                "a FlipReward with a shared inverter cannot be pickled: give it a model"
            )
        return FlipReward, (self.config,)  # unpickling loads the model again

    def _rows(
        self, read: Callable[..., tuple[str, str, str | None]], *columns: Sequence[Any]
    ) -> list[Row]:
        """Read and render every row; bad input becomes the row's error."""
        return [read_row(self._make_row, read, *entries) for entries in zip(*columns, strict=True)]

    def _chat_texts(self, prompt: Any, completion: Any) -> tuple[str, str, str | None]:
        return chat_texts(prompt, completion, self.config.target, self.config.tool_calls)

    def _score(
        self,
        rows: list[Row],
        started: float,
        on_progress: Callable[[int], None] | None = None,
        race: Race | None = None,
    ) -> ScoreBatch:
        n_samples = self.config.samples
        n_runs = n_samples * sum(row.prompt is not None for row in rows)
        generate = partial(self._generation.score, race=race)
        run = generate if self._likelihood is None else self._likelihood.score
        with progress_bar(n_runs, shown=self.config.progress) as advance:

            def on_done(n_done: int) -> None:
                advance(n_done)
                if on_progress is not None:
                    on_progress(n_done // n_samples)

            counts = run(rows, on_done)
        batch = batch_of(rows, counts, self.config, time.perf_counter() - started)
        self._prose.check(batch.status)
        return batch
