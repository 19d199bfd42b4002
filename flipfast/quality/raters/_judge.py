"""The base of all judges: turns groups into prompts, and answers into scores."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, TypeVar

from flipfast.backends import Inverter
from flipfast.errors import ConfigError, InputError
from flipfast.prompts.chat import ChatTemplate
from flipfast.prompts.conversation import checked_texts
from flipfast.prompts.fitting import RenderedPrompt
from flipfast.prompts.judging import JudgePrompts, JudgeTemplate
from flipfast.quality.raters.base import Cost, Group, Rater, Ratings
from flipfast.scores import CUT

Answer = TypeVar("Answer")
Order = tuple[int, ...]  # indices of responses in the group, in the order a prompt shows them
Prompt = tuple[int, ...]  # token ids


class Verdict(NamedTuple):
    """The outcome for one prompt or one response.

    Attributes:
        value: None for a failure.
        status: "ok", or what was wrong.
        error: for status "error" what was wrong, else None.
    """

    value: float | None
    status: str
    error: str | None = None


Heard = list[tuple[Order, Verdict]]  # the verdicts on a group's prompts


@dataclass(frozen=True)
class _Case:
    """A group being judged, and the questions about it.

    Attributes:
        errors: what is wrong with each response, or None.
        places: indices of the responses that are judged; orders index into this list.
        orders, prompts: one of each per question.
    """

    errors: list[str | None]
    places: list[int]
    orders: list[Order]
    prompts: list[RenderedPrompt]


class Judge(Rater, Generic[Answer]):
    """Shows responses to the model and turns its answers into scores.

    Ignores options for inversions, such as style, parser and metric.

    Args:
        name: its name in tables.
        inverter: runs the model.
        template: the wording.
        date: FlipConfig's `prompt_date`.
        thinking: see FlipConfig.
        n_new_tokens: tokens of the context to reserve for the output.
        n_shown: fewest responses in a prompt.

    Raises:
        ConfigError: the chat template changes the prompt, or leaves no room for the texts.
    """

    def __init__(
        self,
        name: str,
        inverter: Inverter,
        template: JudgeTemplate,
        *,
        date: str,
        thinking: bool,
        n_new_tokens: int,
        n_shown: int = 1,
    ) -> None:
        self.name = name
        self._inverter = inverter
        self._chat = ChatTemplate(inverter.tokenizer, date=date, thinking=thinking)
        room = inverter.context_length - n_new_tokens
        self._prompts = JudgePrompts(self._chat, template, max_prompt_tokens=room)
        usual = [self._prompts.get(n_shown, with_context=given) for given in (False, True)]
        for prompt in usual:
            inverter.keep_prefix(prompt.start)
        self._prompt_ending = str(inverter.tokenizer.decode(usual[0].end))

    def rate(self, groups: Sequence[Group], *, seed: int = 0) -> Ratings:
        """See Rater. Identical prompts are run once."""
        started = time.perf_counter()
        cases = [self._case(group, seed) for group in groups]
        wanted = dict.fromkeys(tuple(prompt.token_ids) for case in cases for prompt in case.prompts)
        answers, cost = self._ask(list(wanted), seed)
        by_prompt = dict(zip(wanted, answers, strict=True))
        heard = [
            [
                (order, self._read(by_prompt[tuple(prompt.token_ids)], len(order)))
                for order, prompt in zip(case.orders, case.prompts, strict=True)
            ]
            for case in cases
        ]
        verdicts = [self._verdicts(*pair) for pair in zip(cases, heard, strict=True)]
        ratings = Ratings(
            scores=[[verdict.value for verdict in group] for group in verdicts],
            statuses=[[verdict.status for verdict in group] for group in verdicts],
            errors=[[verdict.error for verdict in group] for group in verdicts],
            cost=replace(cost, seconds=time.perf_counter() - started),
        )
        return self._report(ratings, heard)

    @abstractmethod
    def _ask(self, prompts: list[Prompt], seed: int) -> tuple[list[Answer], Cost]:
        """Run distinct prompts; returns one answer each, and their cost except the time."""

    @abstractmethod
    def _read(self, answer: Answer, n_shown: int) -> Verdict:
        """Extract the verdict from an answer to a prompt with `n_shown` responses."""

    def _orders(self, group: Group, seed: int) -> list[Order]:
        """Choose which responses to show together, in which order.

        Raises:
            InputError: the group cannot be judged.
        """
        return [(place,) for place in range(len(group.responses))]

    def _tally(self, n_responses: int, heard: Heard) -> list[Verdict]:
        """Combine the verdicts on all of a group's prompts to one per response."""
        return [verdict for _, verdict in heard]

    def _report(self, ratings: Ratings, heard: list[Heard]) -> Ratings:
        """Add to the ratings what else the verdicts show."""
        return ratings

    def _case(self, group: Group, seed: int) -> _Case:
        errors = [_flaw(group, text) for text in group.responses]
        places = [place for place, error in enumerate(errors) if error is None]
        texts = tuple(group.responses[place] for place in places)
        try:
            orders = self._orders(replace(group, responses=texts), seed)
            prompts = [
                self._prompts.render(group.instruction, [texts[i] for i in order], group.context)
                for order in orders
            ]
        except (ConfigError, InputError) as error:  # too many responses for a prompt
            return _Case([own or str(error) for own in errors], [], [], [])
        return _Case(errors, places, orders, prompts)

    def _verdicts(self, case: _Case, heard: Heard) -> list[Verdict]:
        verdicts = [Verdict(None, "error", error) for error in case.errors]
        questions = list(zip(case.orders, case.prompts, strict=True))
        for i, verdict in enumerate(self._tally(len(case.places), heard)):
            cut = any(prompt.cut and i in order for order, prompt in questions)
            status = verdict.status + CUT if cut else verdict.status
            verdicts[case.places[i]] = verdict._replace(status=status)
        return verdicts


def _flaw(group: Group, response: object) -> str | None:
    """Return why a response cannot be shown; None if it can."""
    try:
        checked_texts(group.instruction, response, group.context)
    except InputError as error:
        return str(error)
    return None
