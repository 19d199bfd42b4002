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
from flipfast.scoring.samples import Row, read_row
from flipfast.watchers.pruning import Race

__all__ = ["BestOf", "FlipReward", "ScoreBatch"]


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
        self.config = resolve(model, config, options)
        self._owns_inverter = inverter is None
        self._parts = parts = assemble(self.config, inverter)
        generates = self.config.scoring == "generate"
        self._generation = GenerationScorer(parts, self.config)
        self._likelihood = None if generates else LikelihoodScorer(parts, self.config)
        self._make_row = defended((self._likelihood or self._generation).row, self.config)

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
        return trainer_rewards(self.score_chats(prompts, completions))

    def score_chats(self, prompts: Sequence[Any], completions: Sequence[Any]) -> ScoreBatch:
        """Score a batch as trainers have it; see `__call__`, which has the rewards alone.

        Raises:
            InputError: the two differ in length.
        """
        started = time.perf_counter()
        check_lengths(prompts=prompts, completions=completions)
        return self._score(self._rows(self._chat_texts, prompts, completions), started)

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
        check_lengths(**columns, **({} if contexts is None else {"contexts": contexts}))
        given = [None] * len(instructions) if contexts is None else contexts
        rows = self._rows(checked_texts, instructions, responses, given)
        return self._score(rows, started, on_progress)

    def score_prefixes(
        self, instruction: str, response: str, ends: Sequence[int], context: str | None = None
    ) -> ScoreBatch:
        """Score growing beginnings of one response: a reward for each of its segments.

        Each row is what `score` gives for response[:end] alone. The native engine computes what
        the beginnings have in common once.

        Args:
            instruction: the true one.
            response: the whole response.
            ends: where the beginnings end, in characters, rising, each in [0, len(response)].
            context: what came before the response, or None.

        Returns:
            One row an end.

        Raises:
            InputError: a text is not a string, or an end falls or lies outside the response.
        """
        checked_texts(instruction, response, context)
        least = 0
        for end in ends:
            if not least <= end <= len(response):
                raise InputError(
                    f"end {end} of a beginning must lie in [{least}, {len(response)}], behind the "
                    "one before it and inside the response"
                )
            least = end
        n = len(ends)
        return self.score([instruction] * n, [response[:end] for end in ends], [context] * n)

    def score_best_of(
        self, instruction: str, responses: Sequence[str], context: str | None = None
    ) -> BestOf:
        """Find the response with the highest reward, the first of equals.

        The same response as the rewards of `score` tell, with the same reward. On the native engine
        the others may take less time: an output is ended as soon as it cannot win any more against
        one that is finished. Which ones are, and when, may differ from call to call.

        Args:
            instruction: the true one.
            responses: any number. One of a wrong type gets the status "error".
            context: what came before each of them, or None.

        Raises:
            InputError: `responses` is no list, or the instruction or the context no string.
        """
        started = time.perf_counter()
        check_lengths(responses=responses)
        checked_texts(instruction, "", context)
        n = len(responses)
        rows = self._rows(checked_texts, [instruction] * n, responses, [context] * n)
        race = self._generation.race(instruction) if self._likelihood is None else None
        return best_of(self._score(rows, started, race=race), race)

    @property
    def inverter(self) -> Inverter:
        """What runs the model; the native one can `sleep`, `wake` and `update_weights`."""
        return self._parts.inverter

    def __enter__(self) -> FlipReward:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
    ) -> list[Row]:
        """Read and render every row; bad input becomes the row's error."""
        return [read_row(self._make_row, read, *entries) for entries in zip(*columns, strict=True)]

    def _chat_texts(self, prompt: Any, completion: Any) -> tuple[str, str, str | None]:
        return chat_texts(prompt, completion, self.config.target)

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
        return batch_of(rows, counts, self.config, time.perf_counter() - started)
