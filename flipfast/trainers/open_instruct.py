"""open-instruct: the verifier `general-flip`.

Import this module before open-instruct builds its verifiers, which it finds by their base class.
"""

from __future__ import annotations

from typing import Any, ClassVar

from flipfast.errors import MissingDependencyError
from flipfast.prompts import final_answer
from flipfast.scoring import background
from flipfast.trainers._scorers import TrainerScorer

try:
    from open_instruct.ground_truth_utils import (
        VerificationResult,
        VerifierConfig,
        VerifierFunction,
    )
except ImportError as error:
    raise MissingDependencyError(
        "open-instruct is needed: pip install 'open-instruct @ "
        f"git+https://github.com/allenai/open-instruct': {error}"
    ) from error

__all__ = ["FlipVerifier", "TrainerScorer", "split_turns"]


class FlipVerifier(VerifierFunction):  # type: ignore[misc]  # open-instruct is untyped
    """Scores a prediction by how well the query can be inferred from it.

    Attributes:
        scorer: what new verifiers score with. Set it before open-instruct creates one:
            `FlipVerifier.scorer = TrainerScorer("http://127.0.0.1:8000")`. open-instruct has no
            missing score, so its `on_failure` must be a number.
        reads_label: whether the true instruction is the label instead of the query.

    Args:
        verifier_config: open-instruct's; unused.
    """

    scorer: ClassVar[TrainerScorer] = TrainerScorer()
    reads_label: ClassVar[bool] = False

    def __init__(self, verifier_config: VerifierConfig | None = None) -> None:
        super().__init__("general-flip", weight=1.0, verifier_config=verifier_config)
        # Classes are pickled by name: other processes would not see attributes set on this one.
        self._scorer = type(self).scorer
        self._reads_label = type(self).reads_label

    async def async_call(
        self,
        tokenized_prediction: list[int],
        prediction: str,
        label: Any,
        query: str | None = None,
        rollout_state: dict[str, Any] | None = None,
    ) -> VerificationResult:
        """Score one prediction.

        Args:
            tokenized_prediction, rollout_state: unused.
            prediction: the response; see `prompts.final_answer` for the part that is scored.
            label: the instruction if there is no query or `reads_label` is set.
            query: the conversation in open-instruct's format, "role: content" lines.

        Returns:
            The score, with the inferred instruction or what went wrong as the reasoning.

        Raises:
            UnavailableError: the server or the engine cannot be reached.
        """
        instruction, context = label, None
        if query and not self._reads_label:
            instruction, context = split_turns(query)
        answer = final_answer(prediction)
        (row,) = await self._scorer.texts([instruction], [answer], [context])
        shown = row["error"] or row["inferred"] or row["status"]
        return VerificationResult(score=row["reward"], reasoning=shown)

    def __call__(
        self,
        tokenized_prediction: list[int],
        prediction: str,
        label: Any,
        query: str | None = None,
        rollout_state: dict[str, Any] | None = None,
    ) -> VerificationResult:
        """Blocking version of `async_call`."""
        return background.run(self.async_call(tokenized_prediction, prediction, label, query))


def split_turns(query: str) -> tuple[str, str | None]:
    """Split a conversation in "role: content" lines into (instruction, context).

    The instruction is everything after the last "user: " that starts a line; the published scan,
    `prompts.split_query`, keeps only its first line. Without such a line it is the whole query,
    and the context is None.
    """
    before, found, instruction = f"\n{query}".rpartition("\nuser: ")
    return (instruction, before[1:] or None) if found else (query, None)
