"""Judges that write a reason and a verdict."""

from __future__ import annotations

from abc import abstractmethod

from flipfast.backends import Inversion, InversionRequest, Inverter, SamplingParams
from flipfast.config import FlipConfig
from flipfast.engine.sampling import request_seed
from flipfast.errors import ConfigError
from flipfast.parsing.wrappers import leaves_think_open
from flipfast.progress import progress_bar
from flipfast.prompts.judging import JudgeTemplate
from flipfast.quality.raters._judge import Judge, Prompt, Verdict
from flipfast.quality.raters._verdicts import answer_part
from flipfast.quality.raters.base import Cost


class WritingJudge(Judge[Inversion]):
    """Reads a verdict in double square brackets from the model's output.

    A response has no score if there is no verdict ("truncated", "empty", "unparsed") or not one of
    those offered ("out_of_range").

    Args:
        name: its name in tables.
        config: says how outputs are sampled and how long they may be, by default 512 tokens, 2048
            with thinking.
        inverter: runs the model.
        template: the wording.
        n_shown: fewest responses in a prompt.

    Raises:
        ConfigError: several samples are asked for, or the prompt leaves no room for the texts.
    """

    def __init__(
        self,
        name: str,
        config: FlipConfig,
        inverter: Inverter,
        template: JudgeTemplate,
        *,
        n_shown: int = 1,
    ) -> None:
        if config.samples > 1:
            raise ConfigError(
                f"{name!r} reads one verdict a prompt: leave samples at 1, not {config.samples}, "
                "or give them to the reward alone, as in 'flip:samples=4'"
            )
        self._sampling = SamplingParams(
            max_new_tokens=config.max_new_tokens or (2048 if config.thinking else 512),
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
        )
        self._shows_progress = config.progress
        super().__init__(
            name,
            inverter,
            template,
            date=config.prompt_date,
            thinking=config.thinking,
            n_new_tokens=self._sampling.max_new_tokens,
            n_shown=n_shown,
        )
        self._think_open = leaves_think_open(self._prompt_ending)

    @property
    def uses_seed(self) -> bool:
        return self._sampling.temperature > 0

    @abstractmethod
    def _find(self, answer: str) -> float | None:
        """Find the verdict in an answer, whether offered or not; None if there is none."""

    @abstractmethod
    def _offers(self, value: float, n_shown: int) -> bool:
        """Return whether a prompt with `n_shown` responses offers this verdict."""

    def _ask(self, prompts: list[Prompt], seed: int) -> tuple[list[Inversion], Cost]:
        requests = [InversionRequest(ids, request_seed(seed, 0, ids)) for ids in prompts]
        with progress_bar(len(requests), shown=self._shows_progress, of="verdicts") as advance:
            outputs = self._inverter.generate(requests, self._sampling, advance)
        n_output_tokens = sum(len(output.output_ids) for output in outputs)
        return outputs, Cost(len(prompts), sum(map(len, prompts)), n_output_tokens, 0.0)

    def _read(self, answer: Inversion, n_shown: int) -> Verdict:
        if answer.finish_reason == "error":
            return Verdict(None, "error", answer.error)
        text = answer.text or ""
        value = self._find(answer_part(text, think_open=self._think_open))
        if value is None:
            if answer.finish_reason == "length":
                return Verdict(None, "truncated")
            return Verdict(None, "unparsed" if text.strip() else "empty")
        return Verdict(value, "ok") if self._offers(value, n_shown) else _OUT_OF_RANGE


_OUT_OF_RANGE = Verdict(None, "out_of_range")
