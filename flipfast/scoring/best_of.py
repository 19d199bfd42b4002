"""Finds the best of several responses, without finishing the outputs that cannot win."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flipfast.backends import Inversion, InversionRequest
from flipfast.parsing.settled import SettledObject, SettledPlain
from flipfast.scores import CUT, BestOf, ScoreBatch
from flipfast.scoring.assembly import Parts
from flipfast.scoring.reading import OutputReader
from flipfast.scoring.samples import PRUNED, Row, score_rows
from flipfast.watchers.pruning import Candidate, OutputRules, Race

_SETTLED: dict[str, type[SettledPlain] | type[SettledObject]] = {
    "plain": SettledPlain,
    "robust": SettledObject,
}


def pruning_rules(
    parts: Parts, reader: OutputReader, on_failure: float | None
) -> OutputRules | None:
    """Return the rules for pruning outputs; None if they cannot be pruned.

    The inverter must support watchers, and the bytes of its tokens must be known. Nothing is
    certain before the end of an output with the published parser, nor with the plain one after a
    prompt that opens a think block.
    """
    inverter = parts.inverter
    settled = _SETTLED.get(parts.parser)
    if settled is None or not inverter.watches or (parts.think_open and parts.parser == "plain"):
        return None
    tokens, flaw = inverter.token_bytes
    if flaw is not None:
        return None

    def reward(instruction: str, output_ids: list[int], finish_reason: str) -> float | None:
        sample = reader.read(Inversion(output_ids, None, finish_reason))
        return score_rows([Row(instruction, samples=[sample])], on_failure)[0].reward

    return OutputRules(tokens, inverter.end_ids, settled, reward, on_failure)


def enter(race: Race, requests: Sequence[InversionRequest]) -> list[InversionRequest]:
    """Attach a race's watchers to requests, in their order; equal requests share the first's."""
    entered: dict[tuple[int, ...], Candidate] = {}
    for place, request in enumerate(requests):
        candidate = Candidate(race, place, request.watcher)
        entered.setdefault(tuple(request.prompt_ids), candidate)
    return [replace(request, watcher=entered[tuple(request.prompt_ids)]) for request in requests]


def best_of(batch: ScoreBatch, race: Race | None) -> BestOf:
    """Find the best row of a batch, whether or not its outputs were pruned in a race."""
    pruned = [status.removesuffix(CUT) == PRUNED for status in batch.status]
    rewards = [None if cut else reward for reward, cut in zip(batch.rewards, pruned, strict=True)]
    ranked = [(reward, -at) for at, reward in enumerate(rewards) if reward is not None]
    return BestOf(
        best=-max(ranked)[1] if ranked else None,
        rewards=rewards,
        inferred=batch.inferred,
        status=batch.status,
        errors=batch.errors,
        n_prompt_tokens=batch.n_prompt_tokens,
        n_output_tokens=batch.n_output_tokens,
        n_pruned=sum(pruned),
        n_spared_tokens=race.n_spared if race is not None else 0,
        stats=batch.stats,
    )
