"""The reward for rows that arrive one by one (continuous batching)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from flipfast.backends import Inversion, InversionRequest, Inverter, SamplingParams
from flipfast.config import FlipConfig
from flipfast.errors import FlipfastError, InputError
from flipfast.prompts.conversation import chat_texts, checked_texts
from flipfast.scores import ScoredRow, failed_row
from flipfast.scoring.assembly import Parts, assemble
from flipfast.scoring.batches import batch_of
from flipfast.scoring.defences import defended
from flipfast.scoring.generation import GenerationScorer
from flipfast.scoring.likelihood import LikelihoodScorer
from flipfast.scoring.running import RunCounts
from flipfast.scoring.samples import Row, Sample, read_row

_COUNTS = RunCounts(n_folded=0, n_cached=0, n_tokens=0)  # not reported for a single row


class Ticket:
    """A handle to a row or completion in progress.

    Attributes:
        cancel: drops it.
    """

    def __init__(self) -> None:
        self.cancel: Callable[[], None] = lambda: None


class RewardLoop:
    """Takes rows at any time and returns scores as they are done; call it from one thread only.

    On an inverter that streams, rows join the running ones at the next step, and each ends on its
    own. Otherwise, and with scoring="likelihood", a step runs a batch of waiting rows to its end. A
    row's score is bitwise what `FlipReward.score` gives.

    Args:
        config: of the reward.
        inverter: a loaded inverter to share, instead of loading the model here.

    Raises:
        ConfigError, ModelLoadError: as for FlipReward.
    """

    def __init__(self, config: FlipConfig, inverter: Inverter | None = None) -> None:
        self._config = config
        self._parts: Parts = assemble(config, inverter)
        self._scorer: GenerationScorer | LikelihoodScorer
        if config.scoring == "likelihood":
            self._scorer = LikelihoodScorer(self._parts, config)
        else:
            self._scorer = GenerationScorer(self._parts, config)
        self._make_row = defended(self._scorer.row, config)
        self._open: set[Ticket] = set()
        self._ended: deque[tuple[Ticket, Callable[[], None]]] = deque()
        self._rows: dict[Ticket, tuple[Row, Callable[[], None]]] = {}
        self._prompts: dict[Ticket, Callable[[], None]] = {}

    @property
    def inverter(self) -> Inverter:
        """The inverter that runs the model."""
        return self._parts.inverter

    @property
    def n_open(self) -> int:
        """The number of rows and completions that have been added and have not ended."""
        return len(self._open)

    def add(
        self,
        instruction: str,
        response: str,
        context: str | None,
        on_done: Callable[[ScoredRow], None],
    ) -> Ticket:
        """Add a row.

        Args:
            instruction, response, context: as for `FlipReward.score`.
            on_done: called by `step` with the row's scores; invalid input becomes its error.
        """
        return self._add(on_done, checked_texts, instruction, response, context)

    def add_chat(
        self, prompt: Any, completion: Any, on_done: Callable[[ScoredRow], None]
    ) -> Ticket:
        """Add a row in a trainer's format; see `FlipReward.__call__`."""
        return self._add(on_done, self._read_chat, prompt, completion)

    def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        sampling: SamplingParams,
        seed: int,
        on_done: Callable[[Inversion, int], None],
    ) -> Ticket:
        """Let the model answer a conversation.

        Args:
            messages: with "role" and "content".
            sampling, seed: how tokens are chosen.
            on_done: called by `step` with the result, text included, and the length of the prompt
                in tokens.

        Raises:
            InputError: the conversation cannot be rendered, or does not fit the model.
        """
        ids = self._parts.renderer.chat_ids(messages)
        request = InversionRequest(ids, seed)
        refusal = self.inverter.refusal(request, sampling)
        if refusal is not None:
            raise InputError(refusal)
        ticket = self._ticket()

        def end(_: int, inversion: Inversion) -> None:
            if inversion.text is None:
                inversion = replace(inversion, text=self.inverter.decode(inversion.output_ids))
            self._end(ticket, lambda: on_done(inversion, len(ids)))

        if self.inverter.streams:
            self._start(ticket, lambda: self.inverter.start([request], sampling, end))
        else:
            self._prompts[ticket] = lambda: end(0, self.inverter.generate([request], sampling)[0])
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Drop a row or completion; `on_done` is not called, and its memory is freed."""
        self._open.discard(ticket)
        self._rows.pop(ticket, None)
        self._prompts.pop(ticket, None)
        ticket.cancel()

    def step(self) -> None:
        """Advance everything open by one step, and call `on_done` for what has ended."""
        if self._prompts:
            self._prompts.pop(next(iter(self._prompts)))()
        if self._rows:
            self._run_batch()
        elif self.inverter.streams and self._open:
            self.inverter.step()
        while self._ended:
            ticket, hand_out = self._ended.popleft()
            if ticket in self._open:
                self._open.remove(ticket)
                hand_out()

    def _add(
        self,
        on_done: Callable[[ScoredRow], None],
        read: Callable[..., tuple[str, str, str | None]],
        *entries: Any,
    ) -> Ticket:
        ticket = self._ticket()
        try:
            row = read_row(self._make_row, read, *entries)
        except FlipfastError as error:  # would fail a whole batch; here it fails only this row
            scores = failed_row(error, self._config.on_failure)
            self._end(ticket, lambda: on_done(scores))
            return ticket

        def end() -> None:
            self._end(ticket, lambda: on_done(self._scores(row)))

        if row.prompt is None:
            end()
        elif isinstance(self._scorer, GenerationScorer) and self.inverter.streams:
            self._start(ticket, partial(self._scorer.start, row, end))
        else:
            self._rows[ticket] = row, end
        return ticket

    def _start(self, ticket: Ticket, start: Callable[[], Callable[[], None]]) -> None:
        try:
            ticket.cancel = start()
        except FlipfastError:  # the model cannot be used now
            self._open.discard(ticket)
            raise

    def _read_chat(self, prompt: Any, completion: Any) -> tuple[str, str, str | None]:
        return chat_texts(prompt, completion, self._config.target, self._config.tool_calls)

    def _ticket(self) -> Ticket:
        ticket = Ticket()
        self._open.add(ticket)
        return ticket

    def _end(self, ticket: Ticket, hand_out: Callable[[], None]) -> None:
        """Record, on any thread, that something has ended."""
        self._ended.append((ticket, hand_out))

    def _run_batch(self) -> None:
        tickets = list(islice(self._rows, self.inverter.max_running))
        batch = [self._rows.pop(ticket) for ticket in tickets]
        try:
            self._scorer.score([row for row, _ in batch], lambda n_done: None)
        except FlipfastError as error:
            for row, _ in batch:
                row.samples = [Sample(error=str(error))]
        for _, end in batch:
            end()

    def _scores(self, row: Row) -> ScoredRow:
        [scores] = batch_of([row], _COUNTS, self._config, seconds=1.0).to_dicts()
        return scores
