"""The interface that the FLIP reward and judges share as raters of responses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Responses to one instruction.

    Attributes:
        instruction: the true instruction.
        responses: any number.
        context: the conversation before them, or None.
    """

    instruction: str
    responses: tuple[str, ...]
    context: str | None = None


@dataclass(frozen=True)
class Cost:
    """The cost of rating.

    Attributes:
        n_runs: outputs of the model, or forward passes if nothing is generated.
        n_prompt_tokens, n_output_tokens: of all of them.
        seconds: wall time.
    """

    n_runs: int
    n_prompt_tokens: int
    n_output_tokens: int
    seconds: float


@dataclass(frozen=True)
class Ratings:
    """Scores of groups; each list has one list per group, with one entry per response.

    Attributes:
        scores: higher is better, comparable within a group; None, not zero, for a failure.
        statuses: "ok", or a word for what was wrong, such as "unparsed", "truncated" or "error";
            some come with a score nevertheless ("recovered").
        errors: for status "error" what was wrong, else None.
        cost: of all groups together.
    """

    scores: list[list[float | None]]
    statuses: list[list[str]]
    errors: list[list[str | None]]
    cost: Cost


class Rater(ABC):
    """Scores the responses of groups.

    Attributes:
        name: its name in tables.
    """

    name: str

    @property
    @abstractmethod
    def uses_seed(self) -> bool:
        """Whether the scores may depend on the seed."""

    @abstractmethod
    def rate(self, groups: Sequence[Group], *, seed: int = 0) -> Ratings:
        """Score all responses of all groups as one batch.

        A score depends only on its own group, the model, the options and the seed. A response that
        cannot be scored does not prevent the scores of others.

        Args:
            groups: any number, with any number of responses each.
            seed: for everything random: sampling, the order in which responses are shown.
        """
