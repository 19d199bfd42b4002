"""What tells good responses from bad: the interface of the FLIP reward and of judges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Responses to one instruction.

    Attributes:
        instruction: the true one.
        responses: any number.
        context: what came before them, or None.
    """

    instruction: str
    responses: tuple[str, ...]
    context: str | None = None


@dataclass(frozen=True)
class Cost:
    """What rating took.

    Attributes:
        n_runs: outputs of the model, or passes where nothing is written.
        n_prompt_tokens, n_output_tokens: of all of them.
        seconds: wall time.
    """

    n_runs: int
    n_prompt_tokens: int
    n_output_tokens: int
    seconds: float


@dataclass(frozen=True)
class Ratings:
    """Scores of groups; the lists have one entry a group, and theirs one a response.

    Attributes:
        scores: higher is better, comparable within a group; None for a failure, which is no zero.
        statuses: "ok", or a word for what was wrong, such as "unparsed", "truncated" or "error";
            also with a score, where it could be had all the same ("recovered").
        errors: for status "error" what was wrong, else None.
        cost: of all groups together.
    """

    scores: list[list[float | None]]
    statuses: list[list[str]]
    errors: list[list[str | None]]
    cost: Cost


class Rater(ABC):
    """Gives the responses of a group their scores.

    Attributes:
        name: what it is called in tables.
    """

    name: str

    @property
    @abstractmethod
    def uses_seed(self) -> bool:
        """Whether another seed may give other scores."""

    @abstractmethod
    def rate(self, groups: Sequence[Group], *, seed: int = 0) -> Ratings:
        """Score all responses of all groups as one batch.

        A score depends on its own group, the model, the options and the seed, on nothing else. A
        response that cannot be scored does not keep others from their scores.

        Args:
            groups: any number, with any number of responses each.
            seed: of whatever is left to chance: sampling, the order in which responses are shown.
        """
