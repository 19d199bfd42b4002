"""Training samples: the closed world, real pairs, and pseudo-instructions of real responses."""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

from flipfast.training.world import World
from flipfast.training.world.generator import FAILURES, REPEATED_INSTRUCTION

_WORD = re.compile(r"[A-Za-z][A-Za-z'-]{2,}")
_HELD_OUT_ONE_IN = 20
_FAILURE_SHARE = 0.35
_REPEATED_SHARE = 0.03
_PSEUDO = (
    "Write about {}.",
    "Tell me about {}.",
    "Explain {}.",
    "What do you know about {}?",
    "Describe {}.",
)


@dataclass(frozen=True)
class Example:
    """What the inverter reads, what it should write, and one sentence on the evidence for it."""

    response: str
    target: str
    reasoning: str


class RealText:
    """Real instruction/response pairs.

    One in twenty instructions, chosen by a hash of its text, is held out with all its responses.

    Args:
        path: gzipped JSON lines with `instruction` and `response`.
        held_out: whether to keep only the held-out part instead of only the rest.
    """

    def __init__(self, path: Path, *, held_out: bool = False) -> None:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        self.pairs = [
            (row["instruction"].strip(), row["response"].strip())
            for row in rows
            if (zlib.crc32(row["instruction"].encode()) % _HELD_OUT_ONE_IN == 0) == held_out
            and row["response"].strip()
            and row["instruction"].strip()
        ]
        documents = Counter(
            word for _, text in self.pairs for word in set(_WORD.findall(text.lower()))
        )
        self._rarity = {w: math.log(len(self.pairs) / n) for w, n in documents.items() if n > 1}

    def pair(self, rng: Random, *, max_words: int) -> Example:
        """Draw a real pair whose instruction has at most `max_words` words."""
        while True:
            instruction, response = rng.choice(self.pairs)
            if len(instruction.split()) <= max_words:
                break
        if rng.random() < _REPEATED_SHARE:
            return Example(instruction, REPEATED_INSTRUCTION, "It only repeats a request.")
        return Example(response, instruction, self._reasoning(response))

    def pseudo(self, rng: Random, *, max_words: int) -> Example:
        """Draw a span of a real response and build an instruction from its rare words."""
        while True:
            words = rng.choice(self.pairs)[1].split(" ")
            start = rng.randrange(max(1, len(words) - max_words))
            span = " ".join(words[start : start + max_words])
            rare = self._rare_words(span, rng.randrange(1, 6))
            if rare:
                target = rng.choice(_PSEUDO).format(_listed(rare))
                return Example(span, target, self._reasoning(span))

    def _reasoning(self, text: str) -> str:
        rare = self._rare_words(text, 3)
        return f"It deals with {_listed(rare)}." if rare else "It says very little."

    def _rare_words(self, text: str, n: int) -> list[str]:
        """Return the n words with the highest tf-idf, as written and in order of appearance."""
        found = _WORD.findall(text)
        counts = Counter(word.lower() for word in found)
        scores = {w: k * self._rarity.get(w, 0.0) for w, k in counts.items()}
        best = sorted(scores, key=scores.__getitem__, reverse=True)[:n]
        first = {word.lower(): word for word in reversed(found)}
        return [first[word] for word in counts if word in best]


def world_example(world: World, rng: Random) -> Example:
    """Draw from the closed world: mostly good responses, otherwise a failure."""
    if rng.random() < _FAILURE_SHARE:
        sample = world.failure(rng, rng.choice(FAILURES))
    else:
        sample = world.good(rng)
    kind = sample.kind.replace("_", " ")
    return Example(sample.response, sample.target, f"It reads like an answer of the kind: {kind}.")


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
