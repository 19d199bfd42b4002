"""Rewards computed directly from output tokens on their device, without decoding them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from flipfast.backends import Inversion, InversionRequest, Inverter, SamplingParams
from flipfast.backends.native import NativeInverter
from flipfast.engine.ops.devices import as_current
from flipfast.metrics.reference_words import reference_words
from flipfast.parsing.token_spans import span_automaton
from flipfast_kernels.spans import EMPTY, UNDECIDED, SpanAutomaton, find_spans
from flipfast_kernels.word_f1 import word_f1
from flipfast_kernels.word_tables import ReferenceWords, TokenTable, build_token_table


@dataclass(frozen=True)
class DeviceScore:
    """The device's scores of one output.

    Attributes:
        empty: whether the output has a place for an inferred instruction, but nothing in it.
        f1, precision, recall: of the inferred and the true instruction.
    """

    empty: bool
    f1: float
    precision: float
    recall: float


class DeviceScorer:
    """Runs requests and scores their outputs without detokenizing, where that is exact.

    A table holds the words of every vocabulary id, and an automaton finds the instruction in clean
    outputs. What either of them cannot decide is left to the caller.

    Args:
        inverter: with a `token_device`.
        table: of the inverter's tokenizer, on that device.
        automaton: of the parser, on that device.
    """

    def __init__(
        self, inverter: NativeInverter, table: TokenTable, automaton: SpanAutomaton
    ) -> None:
        self._inverter = inverter
        self._table = table
        self._automaton = automaton

    def run(
        self,
        requests: Sequence[InversionRequest],
        pairs: Sequence[tuple[int, str]],
        sampling: SamplingParams,
        on_progress: Callable[[int], None],
    ) -> tuple[list[Inversion], list[DeviceScore | None]]:
        """Continue every prompt and score the outputs.

        The words of the instructions are copied to the device before the model runs.

        Args:
            requests, sampling, on_progress: see `Inverter.generate`.
            pairs: what to score: the index of a request and the true instruction.

        Returns:
            inversions: one per request, without texts.
            scores: one per pair; None if the text is needed, or if the inversion failed.
        """
        device = self._table.device
        instructions = [instruction for _, instruction in pairs]
        distinct = {text: row for row, text in enumerate(dict.fromkeys(instructions))}
        references = reference_words(list(distinct)).to(device)
        rows = torch.tensor([distinct[text] for text in instructions], dtype=torch.int32).to(device)
        places = torch.tensor([place for place, _ in pairs]).to(device)
        shape = (len(requests), sampling.max_new_tokens)
        tokens = torch.zeros(shape, dtype=torch.int32, device=device)
        inversions = self._inverter.generate_into(tokens, requests, sampling, on_progress)
        lengths = [len(inversion.output_ids) for inversion in inversions]
        lens = torch.tensor(lengths, dtype=torch.int32).to(device)
        table = self._scores(tokens[places], lens[places], references, rows)
        return inversions, [
            None if inversions[place].finish_reason == "error" else _score(*row)
            for (place, _), row in zip(pairs, table, strict=True)
        ]

    def warm_up(self, max_new_tokens: int) -> None:
        """Let the kernels be compiled now that score outputs of up to max_new_tokens."""
        device = self._table.device
        tokens = torch.zeros(1, max_new_tokens, dtype=torch.int32, device=device)
        zero = torch.zeros(1, dtype=torch.int32, device=device)
        self._scores(tokens, zero, reference_words([""]).to(device), zero)

    def _scores(
        self,
        tokens: torch.Tensor,
        lens: torch.Tensor,
        references: ReferenceWords,
        rows: torch.Tensor,
    ) -> list[list[float]]:
        """Status, F1, precision and recall of each output.

        Args:
            tokens: (N, T) int32 and lens: (N,) int32, the outputs.
            references: the words of true instructions.
            rows: (N,) int32, which of them is an output's.
        """
        with as_current(self._table.device):
            spans = find_spans(tokens, lens, self._automaton, validate=False)
            words = word_f1(
                tokens, lens, spans.begin, spans.end, self._table, references, rows, validate=False
            )
        decided = words.decided & (spans.status != UNDECIDED)
        kind = torch.where(decided, spans.status, UNDECIDED)
        return torch.cat([kind[:, None].double(), words.scores], dim=1).tolist()


def device_scorer(inverter: Inverter, parser: str, max_new_tokens: int) -> DeviceScorer | None:
    """Make the scorer of an inverter, with its kernels compiled.

    Args:
        inverter: any.
        parser: "plain", "robust" or "reference".
        max_new_tokens: of an output.

    Returns:
        None if the inverter's tokens do not stay on a device, or their bytes are unknown.
    """
    if not isinstance(inverter, NativeInverter) or inverter.token_device is None:
        return None
    tokens, flaw = inverter.token_bytes
    if flaw is not None:
        return None
    device = inverter.token_device
    scorer = DeviceScorer(
        inverter, build_token_table(tokens).to(device), span_automaton(tokens, parser).to(device)
    )
    scorer.warm_up(max_new_tokens)
    return scorer


def _score(kind: float, f1: float, precision: float, recall: float) -> DeviceScore | None:
    if kind == UNDECIDED:
        return None
    return DeviceScore(kind == EMPTY, f1, precision, recall)
