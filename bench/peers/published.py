"""The published pipeline: one call of a model a response, parsed and scored by Python."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import AutoTokenizer

from bench.peers.base import Job
from bench.peers.transformers_generate import Generate
from flipfast.metrics.word_f1_py import word_f1
from flipfast.parsing.reference import parse_reference
from flipfast.prompts.rendering import PromptRenderer
from flipfast.prompts.templates import PromptTemplate


class PublishedPipeline:
    """What the published script does for a list of responses, with its HTTP call left out.

    Parser and F1 are those that are bit-equal to the published ones.

    Args:
        job: its rows are generated one after the other.
        template: the prompt.
        max_response_tokens: a longer response loses its middle.
    """

    def __init__(self, job: Job, template: PromptTemplate, max_response_tokens: int) -> None:
        self._model = Generate(job, rows=1)
        self._n_new = job.n_new
        self.version = self._model.version
        self.settings = {**self._model.settings, "parser": "reference", "f1": "Python"}
        self._tokenizer = AutoTokenizer.from_pretrained(job.folder)
        self._renderer = PromptRenderer(
            self._tokenizer,
            template,
            thinking=False,
            max_prompt_tokens=job.n_prompt,
            max_response_tokens=max_response_tokens,
        )

    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> list[float]:
        """One reward a row; 0.0 where nothing could be inferred."""
        pairs = zip(instructions, responses, strict=True)
        return [self._score(instruction, response) for instruction, response in pairs]

    def _score(self, instruction: str, response: str) -> float:
        prompt = self._renderer.render(response).token_ids
        [output] = self._model.generate([prompt], self._n_new)
        text = self._tokenizer.decode(
            output, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return word_f1(parse_reference(text)[0], instruction)[0]
