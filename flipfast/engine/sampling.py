"""Sampling parameters, and the random numbers that sampling uses."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from flipfast.errors import ConfigError


@dataclass(frozen=True)
class SamplingParams:
    """How the output tokens of a request are chosen.

    Args:
        max_new_tokens: maximum number of tokens a request may produce, at least 1.
        temperature: 0 takes the most likely token (greedy); above 0 samples from
            softmax(logits / temperature).
        top_p: sample from the smallest set of tokens whose probabilities reach this, in (0, 1].
        top_k: sample from the k most likely tokens; 0 means all of them.

    Raises:
        ConfigError: a value outside its range.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if not 0.0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature must be 0 or more, not {self.temperature}")
        if not 0.0 < self.top_p <= 1.0:
            raise ConfigError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.top_k < 0:
            raise ConfigError(f"top_k must be 0 (off) or more, not {self.top_k}")


def request_seed(seed: int, sample: int, prompt_ids: Sequence[int]) -> int:
    """A 64-bit seed from all that a sample may depend on, so that other requests do not affect it.

    Args:
        seed: the user's.
        sample: the sample's index among those of the prompt.
        prompt_ids: token ids of the whole prompt.
    """
    content = array("q", [seed, sample, *prompt_ids]).tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def uniform(seed: int, position: int) -> float:
    """A pseudorandom number in [0, 1) that depends on the two arguments alone.

    Counter-based, so that a token's draw does not depend on when or with which other tokens it is
    drawn: the top 52 bits of BLAKE2b. (52, so that draw * total stays below total in float64.)

    Args:
        seed: of the request, from `request_seed`.
        position: of the token in the output, from 0.
    """
    digest = hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=8).digest()
    return float((int.from_bytes(digest, "big") >> 12) * 2.0**-52)
