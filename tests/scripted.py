"""An inverter that answers from a script, for tests of everything around the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flipfast.backends import Inversion, InversionRequest, Inverter, SamplingParams
from flipfast.engine.sequence import Sequence as EngineSequence
from flipfast.watchers.base import Watcher


class ScriptedInverter(Inverter):
    """Answers each prompt with `answer(prompt_text, request)`: a text, or a whole Inversion."""

    def __init__(self, tokenizer: Any, answer: Callable[[str, InversionRequest], Any]) -> None:
        self.tokenizer = tokenizer
        self.context_length = 4096
        self.vocab_size = len(tokenizer)
        self.requests: list[InversionRequest] = []
        self.sampling: SamplingParams | None = None
        self.closed = False
        self._answer = answer

    def generate(
        self,
        requests: Sequence[InversionRequest],
        sampling: SamplingParams,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Inversion]:
        self.requests, self.sampling = list(requests), sampling
        if on_progress:
            on_progress(len(requests))
        return [self._inversion(request) for request in requests]

    def close(self) -> None:
        self.closed = True

    def _inversion(self, request: InversionRequest) -> Inversion:
        answer = self._answer(self.tokenizer.decode(list(request.prompt_ids)), request)
        if isinstance(answer, Inversion):
            return answer
        return Inversion(self.tokenizer.encode(answer), answer, "stop")


class WatchedInverter(ScriptedInverter):
    """Says its answers token by token, as far as the requests' watchers let it."""

    watches = True

    def _inversion(self, request: InversionRequest) -> Inversion:
        answer = super()._inversion(request)
        assert self.sampling is not None
        output, reason = watched(request.watcher, answer.output_ids, self.sampling)
        return Inversion(output, self.decode(output), reason)


def watched(
    watcher: Watcher | None, tokens: Sequence[int], sampling: SamplingParams
) -> tuple[list[int], str]:
    """The output, and its finish_reason, of a model that samples these tokens."""
    sequence = EngineSequence([0], sampling, watcher=watcher)
    for token in tokens:
        if sequence.finish_reason is None:
            sequence.accept(token, frozenset())
    return sequence.output_ids, sequence.finish_reason or "stop"
