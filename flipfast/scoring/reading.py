"""Extracts the instructions from a model's outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flipfast.backends import Inversion, Inverter
from flipfast.parsing import extract_instruction
from flipfast.scoring.samples import PRUNED, Sample

if TYPE_CHECKING:
    from flipfast.scoring.device_scoring import DeviceScore


class OutputReader:
    """Reads the outputs of one model for one prompt template.

    Args:
        inverter: the one that wrote the outputs.
        parser, think_open: see `extract_instruction`.
        forced: whether the engine writes all of the output's object except its values.
    """

    def __init__(self, inverter: Inverter, parser: str, *, think_open: bool, forced: bool) -> None:
        self._inverter = inverter
        self._parser = parser
        self._think_open = think_open
        # Such outputs are part of the instruction to their end, whatever the parser says.
        self._to_its_end = parser == "plain" or forced

    def read(self, inversion: Inversion, score: DeviceScore | None = None) -> Sample:
        """Extract the instruction from an output, lazily if it is not needed now.

        Args:
            inversion: with text or without.
            score: the device's scores of the output, or None.
        """
        sample = Sample(error=inversion.error, n_output_tokens=len(inversion.output_ids))
        if inversion.finish_reason == "error":
            return sample
        if inversion.finish_reason == "pruned":
            sample.status = PRUNED
            sample.inferred = lambda: self._extract(inversion)[0]
            return sample
        if score is None:
            sample.inferred, sample.status = self._extract(inversion)
        else:
            sample.status = "empty" if score.empty else "ok"
            sample.scores = [score.f1, score.precision, score.recall]
            sample.inferred = lambda: self._extract(inversion)[0]
        if self._to_its_end and not sample.failed and inversion.finish_reason != "stop":
            sample.status = "truncated"
        return sample

    def _extract(self, inversion: Inversion) -> tuple[str, str]:
        text = inversion.text
        if text is None:
            text = self._inverter.decode(inversion.output_ids)
        return extract_instruction(text, self._parser, think_open=self._think_open)
