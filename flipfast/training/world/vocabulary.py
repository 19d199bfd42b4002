"""Entities of the closed world: the listed ones and those made by rule."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from random import Random
from typing import TypeAlias

Value: TypeAlias = str | dict[str, str]

_COUNTS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve")
_COLORS = ("red", "blue", "green", "yellow", "purple", "orange", "white", "black", "brown", "pink")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_TONGUES = ("French", "Spanish", "German", "Italian", "Dutch", "Polish", "Turkish", "Welsh")
_UNITS = ("miles", "kilometers", "pounds", "kilograms", "gallons", "liters", "inches", "feet")
_VERBS = ("saw", "lost", "sold", "painted", "broke", "found", "bought", "carried", "hid", "drew")
_ONSETS = (
    *("b", "br", "d", "dr", "f", "g", "gl", "k", "kr", "l", "m", "n", "p", "pl", "r", "s"),
    *("sk", "st", "t", "tr", "v", "w", "z", "th", "sh", "ch", "qu", "h"),
)
_NUCLEI = ("a", "e", "i", "o", "u", "ai", "ea", "oo", "ou")
_CODAS = ("", "", "l", "m", "n", "r", "s", "x", "nd", "rk", "lt", "sh")


class Vocabulary:
    """Draws a value for an entity class."""

    def __init__(self) -> None:
        self._listed = _read_classes()
        self._made: dict[str, Callable[[Random], Value]] = {
            "count": lambda rng: rng.choice(_COUNTS),
            "color": lambda rng: rng.choice(_COLORS),
            "day": lambda rng: rng.choice(_DAYS),
            "tongue": lambda rng: rng.choice(_TONGUES),
            "unit": lambda rng: rng.choice(_UNITS),
            "num": lambda rng: str(rng.randrange(5, 500)),
            "athing": lambda rng: f"a {self.draw('object', rng)}",
            "person": lambda rng: f"{self.draw('first', rng)} {self.draw('last', rng)}",
            "title": lambda rng: (
                f"The {self.draw('adjective', rng)} {self.draw('noun', rng)}".title()
            ),
            "made": _made_word,
            "sum": _sum,
            "sentence": self._sentence,
        }

    def draw(self, name: str, rng: Random) -> Value:
        """Return a value of class `name`: a text, or a dict of texts for "sum"."""
        if name in self._made:
            return self._made[name](rng)
        return rng.choice(self._listed[name])

    def _sentence(self, rng: Random) -> str:
        who, what = self.draw("first", rng), self.draw("object", rng)
        where = rng.choice((self.draw("place", rng), f"the {self.draw('noun', rng)}"))
        return f"{who} {rng.choice(_VERBS)} the {what} near {where}."


def _made_word(rng: Random) -> str:
    """A pronounceable word that exists nowhere, so that it can only be copied."""
    syllables = range(rng.randrange(2, 4))
    word = "".join(rng.choice(_ONSETS) + rng.choice(_NUCLEI) for _ in syllables)
    return (word + rng.choice(_CODAS)).capitalize()


def _sum(rng: Random) -> dict[str, str]:
    left, right = rng.randrange(2, 100), rng.randrange(2, 100)
    return {"left": str(left), "right": str(right), "total": str(left + right)}


def _read_classes() -> dict[str, list[str]]:
    text = resources.files(__package__).joinpath("entities.txt").read_text("utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    named = [line.split(": ", 1) for line in lines]
    return {name: members.split(", ") for name, members in named}
