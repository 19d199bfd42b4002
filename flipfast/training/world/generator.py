"""Draws samples and best-of-N groups of the closed world described in kinds.txt."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from importlib import resources
from random import Random

from flipfast.training.world.vocabulary import Value, Vocabulary

_FIELD = re.compile(r"\{(\w+)(?:\.(\w+)|(!))?\}")
_ASK_SLOTS = re.compile(r"((?:\s+\w+=\w+)+)$")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])")
_HELD_OUT_ONE_IN = 10

# Targets for failed responses: what such a response answers, if anything.
CONTENTLESS_INSTRUCTION = "Say nothing in particular."
REPEATED_INSTRUCTION = "Repeat what I say."
BEGINNING_OF = "Write only the beginning: {}"
_CONTENTLESS = (
    "I am sorry, but I cannot help with that.",
    "Sure! Here you go.",
    "As a language model, I have no opinion on this.",
    "Thank you for your question. It is a very good question.",
    "Okay.",
    "I will do my best to answer. Please let me know if you need anything else.",
    "That is interesting. There are many things one could say here.",
    "...",
    "Of course! I would be happy to help you with that request.",
    "It depends.",
    "Certainly. Let me think about it step by step. The answer follows from that.",
)
_REPEATS = ("{0}", "{0} {0}", 'You asked: "{0}"', "The question is: {0}", "{0}\n\n{0}\n\n{0}")
FAILURES = ("off_topic", "wrong_entity", "truncated", "over_long", "contentless", "repeated")


@dataclass(frozen=True)
class Ask:
    """One wording of an instruction, with the opening sentences that answer it."""

    text: str
    slots: dict[str, str]
    leads: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Kind:
    """One kind of task."""

    name: str
    slots: dict[str, str]
    asks: list[Ask] = field(default_factory=list)
    body: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Sample:
    """A response and the instruction that it belongs to.

    Attributes:
        kind: the kind of task.
        instruction: the instruction that the response was written for.
        response: the response.
        label: "good" or one of FAILURES.
        target: what an inverter should infer from the response; the instruction for a good one.
    """

    kind: str
    instruction: str
    response: str
    label: str
    target: str


@dataclass(frozen=True)
class Group:
    """An instruction with responses to choose from."""

    instruction: str
    samples: list[Sample]


class World:
    """The closed world.

    A hash of their text splits instructions into a training and a held-out part, so that no
    held-out combination of wording and entities is ever seen in training.

    Args:
        held_out: whether to draw from the held-out part.
    """

    def __init__(self, *, held_out: bool = False) -> None:
        self.kinds = _read_kinds()
        self._held_out = held_out
        self._vocabulary = Vocabulary()

    def good(self, rng: Random) -> Sample:
        """Draw an instruction with a good response."""
        return self._draw(rng)[0]

    def failure(self, rng: Random, label: str) -> Sample:
        """Draw an instruction with a response that fails as `label` says (one of FAILURES)."""
        sample, kind, ask = self._draw(rng)
        return self._fail(sample, kind, ask, label, rng)

    def group(self, rng: Random, *, n_good: int = 2, size: int = 8) -> Group:
        """Draw one instruction with `n_good` good responses, filled up to `size` with failures."""
        sample, kind, ask, values = self._draw_with_values(rng)
        samples = [self._answer(kind, ask, values, rng) for _ in range(n_good)]
        labels = [FAILURES[i % len(FAILURES)] for i in range(size - n_good)]
        samples += [self._fail(sample, kind, ask, label, rng) for label in labels]
        rng.shuffle(samples)
        return Group(sample.instruction, samples)

    def _draw(self, rng: Random) -> tuple[Sample, Kind, Ask]:
        return self._draw_with_values(rng)[:3]

    def _draw_with_values(self, rng: Random) -> tuple[Sample, Kind, Ask, dict[str, Value]]:
        while True:
            kind = rng.choice(self.kinds)
            ask = rng.choice(kind.asks)
            values = self._values(kind, ask, rng)
            sample = self._answer(kind, ask, values, rng)
            held_out = zlib.crc32(sample.instruction.encode()) % _HELD_OUT_ONE_IN == 0
            if held_out == self._held_out:
                return sample, kind, ask, values

    def _values(self, kind: Kind, ask: Ask, rng: Random) -> dict[str, Value]:
        slots = {**kind.slots, **ask.slots}
        while True:
            values = {slot: self._vocabulary.draw(name, rng) for slot, name in slots.items()}
            texts = [value for value in values.values() if isinstance(value, str)]
            if len(set(texts)) == len(texts):  # a comparison needs two different things
                return values

    def _answer(self, kind: Kind, ask: Ask, values: dict[str, Value], rng: Random) -> Sample:
        n_body = rng.randrange(1, len(kind.body) + 1)
        chosen = sorted(rng.sample(range(len(kind.body)), n_body))
        sentences = [rng.choice(ask.leads), *(kind.body[i] for i in chosen)]
        glue = rng.choice((" ", "\n")) if "\n" not in sentences[0] else "\n"
        text = glue.join(self._fill(sentence, values, rng) for sentence in sentences)
        instruction = self._fill(ask.text, values, rng)
        return Sample(kind.name, instruction, text, "good", instruction)

    def _fill(self, text: str, values: dict[str, Value], rng: Random) -> str:
        def value_of(match: re.Match[str]) -> str:
            name, part, bystander = match.groups()
            value = self._vocabulary.draw(name, rng) if bystander else values[name.lower()]
            if isinstance(value, dict):
                return value[part]
            return value[:1].upper() + value[1:] if name[0].isupper() else value

        return _ARTICLE.sub(r"\1n ", _FIELD.sub(value_of, text))

    def _fail(self, sample: Sample, kind: Kind, ask: Ask, label: str, rng: Random) -> Sample:
        other = self._draw(rng)[0]
        if label == "off_topic":
            return self._labelled(sample, label, other.response, other.target)
        if label == "wrong_entity":
            wrong = self._answer(kind, ask, self._values(kind, ask, rng), rng)
            return self._labelled(sample, label, wrong.response, wrong.target)
        if label == "truncated":
            words = sample.response.split(" ")
            cut = " ".join(words[: rng.randrange(1, max(2, min(6, len(words) // 3)))])
            return self._labelled(sample, label, cut, BEGINNING_OF.format(sample.target))
        if label == "over_long":
            text = f"{sample.response}\n\n{other.response}"
            return self._labelled(sample, label, text, f"{sample.target} {other.target}")
        if label == "contentless":
            return self._labelled(sample, label, rng.choice(_CONTENTLESS), CONTENTLESS_INSTRUCTION)
        if label == "repeated":
            text = rng.choice(_REPEATS).format(sample.instruction)
            return self._labelled(sample, label, text, REPEATED_INSTRUCTION)
        raise ValueError(f"unknown failure {label!r}: use one of {', '.join(FAILURES)}")

    @staticmethod
    def _labelled(sample: Sample, label: str, response: str, target: str) -> Sample:
        return Sample(sample.kind, sample.instruction, response, label, target)


def _read_kinds() -> list[Kind]:
    """Parse kinds.txt; the head of the file describes the format."""
    kinds: list[Kind] = []
    text = resources.files(__package__).joinpath("kinds.txt").read_text("utf-8")
    for line in text.splitlines():
        mark, rest = line[:1], line[2:].replace("\\n", "\n")
        if mark == "[":
            name, slots = line[1:].split("]", 1)
            kinds.append(Kind(name, _slots(slots)))
        elif mark == ">":
            found = _ASK_SLOTS.search(rest)
            slots = found.group(1) if found else ""
            kinds[-1].asks.append(Ask(rest[: len(rest) - len(slots)], _slots(slots)))
        elif mark == "<":
            kinds[-1].asks[-1].leads.append(rest)
        elif mark == "-":
            kinds[-1].body.append(rest)
    return kinds


def _slots(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.split())
