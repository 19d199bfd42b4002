"""Credit for the parts of a response: how much each changes the reward of what came before it.

All beginnings of the response are scored, and a part's credit is the difference between the two on
either side of it: the credits of all parts add up to the reward of the whole response less that of
an empty one. With scoring="likelihood" a credit is the part's pointwise mutual information with the
instruction, given the parts before it, for each token of the instruction; AgentBrew (arXiv
2609.05837) splits its process reward over an agent's actions like that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Protocol

from flipfast.config import FlipConfig
from flipfast.prompts.conversation import (
    assistant_texts,
    final_answer,
    join_turns,
    split_prompt,
)
from flipfast.scores import ScoreBatch

# After a full stop or the like and what may close a quotation, or at a line's end.
_SENTENCE_END = re.compile(
    r"[.!?\u2026][\"'\u201d\u2019)\]]*\s+"
    r"|[\u3002\uff01\uff1f][\u201d\u2019\u300d\u300f\uff09]*\s*"
    r"|\n\s*"
)


class ScoresBeginnings(Protocol):
    """What credit needs of a `FlipReward`."""

    config: FlipConfig

    def score_prefixes(
        self, instruction: str, response: str, ends: Sequence[int], context: str | None = None
    ) -> ScoreBatch: ...


@dataclass(frozen=True)
class Part:
    """One part of a response.

    Attributes:
        text: the part itself; all of them in order are the response.
        credit: the reward up to its end less that up to its start; None where one of them could
            not be scored.
    """

    text: str
    credit: float | None


@dataclass(frozen=True)
class Credit:
    """A response in parts.

    Attributes:
        parts: in order.
        beginnings: the scores of the beginnings, of the empty one first: one more than parts.
    """

    parts: tuple[Part, ...]
    beginnings: ScoreBatch


def credit(
    reward: ScoresBeginnings,
    instruction: str,
    response: str,
    ends: Sequence[int] | None = None,
    context: str | None = None,
) -> Credit:
    """Split the reward of a response over its parts.

    The native engine computes what the beginnings have in common once.

    Args:
        reward: a FlipReward, with any of its options.
        instruction: the true instruction.
        response: the whole response.
        ends: where parts end, in characters, non-decreasing; what is behind the last one is a part
            of its own. None for `sentence_ends(response)`.
        context: the conversation before the response, or None.

    Raises:
        InputError: as for `FlipReward.score_prefixes`.
    """
    inner = sentence_ends(response) if ends is None else ends
    places = [0, *inner]
    if len(places) == 1 or places[-1] != len(response):
        places.append(len(response))
    batch = reward.score_prefixes(instruction, response, places, context)
    return _credit([response[start:end] for start, end in pairwise(places)], batch)


def turn_credit(reward: ScoresBeginnings, prompt: Any, completion: Sequence[Any]) -> Credit:
    """Split the reward of an agent's trace over the assistant's turns.

    The response is what the assistant says in all its turns; each turn is a part, also one without
    text, whose credit is 0. What the environment or tools answer is not scored.

    Args:
        reward: a FlipReward.
        prompt: a string, or messages, as for `FlipReward.score_chats`.
        completion: messages, with any number of assistant turns among them.

    Raises:
        InputError: one of them has a wrong shape or lacks a turn.
    """
    instruction, context = split_prompt(prompt, reward.config.target)
    texts = [final_answer(text) for text in assistant_texts(completion)]
    beginnings = list(accumulate(texts, join_turns))
    ends = [0, *map(len, beginnings)]
    batch = reward.score_prefixes(instruction, beginnings[-1], ends, context)
    return _credit(texts, batch)


def sentence_ends(text: str) -> list[int]:
    """Where sentences end, in characters, each with the white space behind it.

    A sentence ends after a full stop, a question or exclamation mark or an ellipsis, with the
    quotation marks and brackets that close behind it and white space after them, after the same
    marks of Chinese and Japanese, and at a line break. The end of the text is the last one.
    """
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return ends if not text or (ends and ends[-1] == len(text)) else [*ends, len(text)]


def _credit(texts: Sequence[str], beginnings: ScoreBatch) -> Credit:
    parts = [
        Part(text, None if before is None or after is None else after - before)
        for text, (before, after) in zip(texts, pairwise(beginnings.rewards), strict=True)
    ]
    return Credit(tuple(parts), beginnings)
