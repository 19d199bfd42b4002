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
from flipfast_kernels.word_tables import TokenTable, build_token_table


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
        tokens = tokens[places]
        lens = torch.tensor(lengths, dtype=torch.int32).to(device)[places]
        with as_current(device):
            spans = find_spans(tokens, lens, self._automaton, validate=False)
            words = word_f1(
                tokens, lens, spans.begin, spans.end, self._table, references, rows, validate=False
            )
        decided = words.decided & (spans.status != UNDECIDED)
        kind = torch.where(decided, spans.status, UNDECIDED)
        table = torch.cat([kind[:, None].double(), words.scores], dim=1).tolist()
        return inversions, [
            None if inversions[place].finish_reason == "error" else _score(*row)
            for (place, _), row in zip(pairs, table, strict=True)
        ]


def device_scorer(inverter: Inverter, parser: str) -> DeviceScorer | None:
    """Make the scorer of an inverter.

    Args:
        inverter: any.
        parser: "plain", "robust" or "reference".

    Returns:
        None if the inverter's tokens do not stay on a device, or their bytes are unknown.
    """
    if not isinstance(inverter, NativeInverter) or inverter.token_device is None:
        return None
    tokens, flaw = inverter.token_bytes
    if flaw is not None:
        return None
    device = inverter.token_device
    return DeviceScorer(
        inverter, build_token_table(tokens).to(device), span_automaton(tokens, parser).to(device)
    )


def _score(kind: float, f1: float, precision: float, recall: float) -> DeviceScore | None:
    if kind == UNDECIDED:
        return None
    return DeviceScore(kind == EMPTY, f1, precision, recall)
