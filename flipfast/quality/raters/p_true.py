"""A judge that generates nothing: how likely the model is to call a response good."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flipfast.backends import Inverter, Likelihood, LikelihoodRequest
from flipfast.config import FlipConfig
from flipfast.errors import ConfigError
from flipfast.progress import progress_bar
from flipfast.prompts.encoding import TextEncoder
from flipfast.prompts.judging import P_TRUE
from flipfast.quality.raters._judge import Judge, Prompt, Verdict
from flipfast.quality.raters.base import Cost
from flipfast.scoring.assembly import needs_native

_ANSWERS = ("Yes", "No")


class PTrueJudge(Judge[Sequence[Likelihood]]):
    """Scores a response by p(Yes) / (p(Yes) + p(No)), read from the logits after one question.

    P(True) of Kadavath et al. 2022 (arXiv 2207.05221), asked about a response's quality. The two
    probabilities are those of the words' first tokens at the start of the answer. Thinking is off,
    and sampling options are ignored.

    Args:
        name: its name in tables.
        config: says what date it is, and whether to show a progress bar.
        inverter: one that has likelihoods.

    Raises:
        ConfigError: the inverter has none, the words have no distinct first tokens, or the prompt
            leaves no room for the texts.
    """

    def __init__(self, name: str, config: FlipConfig, inverter: Inverter) -> None:
        if not inverter.has_likelihoods:
            raise needs_native(repr(name), inverter)
        super().__init__(
            name, inverter, P_TRUE, date=config.prompt_date, thinking=False, n_new_tokens=1
        )
        self._targets = _first_tokens(self._chat.encoder)
        self._shows_progress = config.progress

    @property
    def uses_seed(self) -> bool:
        return False

    def _ask(self, prompts: list[Prompt], seed: int) -> tuple[list[Sequence[Likelihood]], Cost]:
        requests = [
            LikelihoodRequest(ids, (target,)) for ids in prompts for target in self._targets
        ]
        with progress_bar(len(requests), shown=self._shows_progress, of="passes") as advance:
            found = self._inverter.likelihoods(requests, advance)
        n_prompt_tokens = sum(len(request.prompt_ids) for request in requests)
        pairs: list[Sequence[Likelihood]] = list(zip(found[::2], found[1::2], strict=True))
        return pairs, Cost(len(requests), n_prompt_tokens, 0, 0.0)

    def _read(self, answer: Sequence[Likelihood], n_shown: int) -> Verdict:
        error = next((found.error for found in answer if found.error is not None), None)
        if error is not None:
            return Verdict(None, "error", error)
        yes, no = (found.logprobs[0] for found in answer)
        return Verdict(_logistic(yes - no), "ok")


def _first_tokens(encoder: TextEncoder) -> list[int]:
    found = [encoder.encode_text(word)[:1] for word in _ANSWERS]
    if [] in found or found[0] == found[1]:
        raise ConfigError(
            f"p_true needs {' and '.join(_ANSWERS)} to begin with tokens of their own: this "
            f"model's tokenizer makes {found} of them; use another judge"
        )
    return [ids[0] for ids in found]


def _logistic(x: float) -> float:
    """Return 1 / (1 + exp(-x)) without overflow."""
    small = math.exp(-abs(x))
    return 1 / (1 + small) if x >= 0 else small / (1 + small)


def load(name: str, config: FlipConfig, inverter: Inverter) -> PTrueJudge:
    """See load_rater."""
    return PTrueJudge(name, config, inverter)
