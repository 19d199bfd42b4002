"""The reward without decoding: how likely the true instruction is, given a response."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from flipfast.backends import Likelihood, LikelihoodRequest
from flipfast.config import FlipConfig
from flipfast.parsing.strings import decode
from flipfast.prompts.rendering import RenderedPrompt
from flipfast.scores import CUT
from flipfast.scoring.assembly import Parts
from flipfast.scoring.running import ResultCache, RunCounts
from flipfast.scoring.samples import Row, Sample

_OPENING = '{"INFERRED INSTRUCTION": "'
_BASELINES = 4096  # how many to keep for later calls


@dataclass
class LikelihoodRow(Row):
    """A row whose instruction is scored as the continuation of its prompt.

    Attributes:
        context: as given.
        request: the prompt and the instruction's tokens; no tokens if it is empty.
    """

    context: str | None = None
    request: LikelihoodRequest = field(default_factory=lambda: LikelihoodRequest((), ()))


@dataclass(frozen=True)
class _Found:
    """The result of one pass: the mean log-probability, and the text of the likeliest tokens."""

    mean: float
    text: str
    error: str | None


class LikelihoodScorer:
    """Rewards a row with the mean of log p(token of the instruction | prompt, tokens before it).

    This differs from the F1 with an inferred instruction: F1 asks which words the model comes up
    with, this reward how likely the response makes the exact wording of the true instruction. It is
    a mean over tokens, of natural logarithms in float64, so long instructions do not score lower
    for their length. A row's `inferred` is the text of the likeliest token at each place, given the
    true tokens before it (teacher forcing, Williams and Zipser 1989).

    If the prompt asks for a JSON object, the object's opening follows it, and the instruction is
    written with JSON escapes. The baseline is the same mean under the prompt with an empty
    response; it is run once per instruction and context, and kept until the weights change.

    Args:
        parts: with an inverter that has likelihoods, and a renderer whose longest prompt is as long
            as the model's context, which the instruction shares.
        config: says whether there is a baseline, and how many other results to keep.
    """

    def __init__(self, parts: Parts, config: FlipConfig) -> None:
        self._inverter = parts.inverter
        self._renderer = parts.renderer
        self._wants_json = parts.template.wants_json
        self._subtracts = config.likelihood_baseline
        opening = _OPENING if self._wants_json else ""
        self._opening = parts.renderer.encoder.encode_text(opening)
        self._results = ResultCache[_Found](config.cache_rewards)
        self._baselines = ResultCache[_Found](_BASELINES)

    def row(self, instruction: str, response: str, context: str | None) -> LikelihoodRow:
        """Render a row; if prompt and instruction do not fit, the response loses its middle.

        Raises:
            InputError: the instruction does not fit the model's context together with the prompt.
        """
        written = json.dumps(instruction, ensure_ascii=False)[1:-1]
        text = written if self._wants_json else instruction
        target_ids = self._renderer.encoder.encode_text(text)
        prompt = self._render(response, context, len(target_ids))
        request = LikelihoodRequest(prompt.token_ids, target_ids)
        return LikelihoodRow(instruction, prompt, context=context, request=request)

    def score(self, rows: Sequence[Row], on_progress: Callable[[int], None]) -> RunCounts:
        """Set the sample of every row made by `row`.

        Args:
            rows: any.
            on_progress: called from time to time with the number of rows done so far.

        Returns:
            Counts of the rows; tokens are those of prompts and instructions, baselines included.
        """
        made = [row for row in rows if isinstance(row, LikelihoodRow)]
        asked = [row for row in made if row.request.target_ids]
        n_empty = len(made) - len(asked)
        if n_empty:
            on_progress(n_empty)
        baselines, n_tokens = self._baselines_of(asked)
        requests = [row.request for row in asked]
        found, counts = self._run(requests, self._results, lambda n: on_progress(n_empty + n))
        for row in made:
            row.samples = [Sample(status="empty")]
        for row, one, baseline in zip(asked, found, baselines, strict=True):
            row.samples = [_sample(one, baseline)]
        for row in made:
            if row.prompt is not None and row.prompt.cut:
                row.samples[0].status += CUT
        return replace(counts, n_tokens=counts.n_tokens + n_tokens)

    def _baselines_of(self, rows: Sequence[LikelihoodRow]) -> tuple[list[_Found], int]:
        """Score the rows' instructions without a response; also returns the tokens it took."""
        if not self._subtracts:
            return [_Found(0.0, "", None)] * len(rows), 0
        distinct = {(row.instruction, row.context): row.request.target_ids for row in rows}
        requests = [
            LikelihoodRequest(self._render("", context, len(ids)).token_ids, ids)
            for (_, context), ids in distinct.items()
        ]
        found, counts = self._run(requests, self._baselines, lambda n_done: None)
        by_text = dict(zip(distinct, found, strict=True))
        return [by_text[row.instruction, row.context] for row in rows], counts.n_tokens

    def _run(
        self,
        requests: Sequence[LikelihoodRequest],
        cache: ResultCache[_Found],
        on_progress: Callable[[int], None],
    ) -> tuple[list[_Found], RunCounts]:
        """Run each distinct request that is not in the cache."""
        keys = [_key(request) for request in requests]
        distinct = dict(zip(keys, requests, strict=True))
        version = self._inverter.weights_version
        found = cache.get(distinct, version)
        n_cached = len(found)
        fresh = {key: request for key, request in distinct.items() if key not in found}
        n_ready = len(requests) - len(fresh)
        if n_ready:
            on_progress(n_ready)
        if fresh:
            new = self._inverter.likelihoods(
                list(fresh.values()), lambda n_done: on_progress(n_ready + n_done)
            )
            found.update(zip(fresh, map(self._read, new), strict=True))
        cache.put({key: found[key] for key in distinct if found[key].error is None}, version)
        counts = RunCounts(
            n_folded=len(requests) - len(distinct),
            n_cached=n_cached,
            n_tokens=sum(len(r.prompt_ids) + len(r.target_ids) for r in fresh.values()),
        )
        return [found[key] for key in keys], counts

    def _read(self, likelihood: Likelihood) -> _Found:
        if likelihood.error is not None:
            return _Found(0.0, "", likelihood.error)
        text = self._inverter.decode(likelihood.best_ids)
        text = decode(text, cut=True) if self._wants_json else text
        return _Found(fmean(likelihood.logprobs), text, None)

    def _render(self, response: str, context: str | None, n_target: int) -> RenderedPrompt:
        reserved = len(self._opening) + n_target
        prompt = self._renderer.render(response, context, reserved=reserved)
        return replace(prompt, token_ids=prompt.token_ids + self._opening)


def _sample(found: _Found, baseline: _Found) -> Sample:
    error = found.error or baseline.error
    if error is not None:
        return Sample(error=error)
    return Sample(found.text, "ok", reward=found.mean - baseline.mean)


def _key(request: LikelihoodRequest) -> bytes:
    """Hash what a result depends on besides the model, to 32 bytes."""
    n_prompt = len(request.prompt_ids)
    content = array("q", [n_prompt, *request.prompt_ids, *request.target_ids]).tobytes()
    return hashlib.blake2b(content, digest_size=32).digest()
