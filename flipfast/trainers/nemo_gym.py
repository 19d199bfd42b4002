"""NeMo Gym: a resources server, which NeMo-RL and others ask to verify rollouts.

`examples/nemo_gym` is the folder that NeMo Gym wants of a server, with its configuration.
"""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, PrivateAttr

from flipfast.errors import MissingDependencyError, UnavailableError
from flipfast.scores import ScoredRow, failed
from flipfast.trainers._scorers import TrainerScorer, figures

try:
    from nemo_gym.base_resources_server import (
        BaseMultiRewardVerifyResponse,
        BaseResourcesServerConfig,
        BaseVerifyRequest,
        SimpleResourcesServer,
    )
    from nemo_gym.judge import JudgeError
except ImportError as error:
    raise MissingDependencyError(f"NeMo Gym is needed: pip install nemo-gym: {error}") from error

# Statuses to NeMo Gym's names. A response without a text is the policy's own failure: its reward
# is valid.
_KINDS = {"empty": "judge_unparseable", "unparsed": "judge_unparseable", "error": "verifier_error"}


class FlipResourcesServerConfig(BaseResourcesServerConfig):  # type: ignore[misc]  # NeMo Gym is untyped
    """The server's entry in NeMo Gym's configuration.

    Attributes:
        target, timeout, on_failure: see TrainerScorer; NeMo Gym has no missing reward.
        instruction_key: the field of a dataset's row that holds the true instruction, a string or
            messages. None takes the input of the row's `responses_create_params`.
        options: further options of TrainerScorer.
    """

    target: str | None = None
    timeout: float = 300.0
    on_failure: float = 0.0
    instruction_key: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class FlipVerifyRequest(BaseVerifyRequest):  # type: ignore[misc]
    """A rollout, and the other fields of its row."""

    model_config = ConfigDict(extra="allow")


class FlipVerifyResponse(BaseMultiRewardVerifyResponse):  # type: ignore[misc]
    """The rollout with its reward. The figures are the components, too, so that they are logged."""

    model_config = ConfigDict(extra="allow")

    flip_inferred: str
    flip_status: str
    flip_failed: float
    flip_precision: float
    flip_recall: float


class FlipResourcesServer(SimpleResourcesServer):  # type: ignore[misc]
    """Rewards a response by how well the instruction can be inferred from it."""

    config: FlipResourcesServerConfig
    _flip: TrainerScorer = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Make the scorer, which loads nothing until the first row."""
        super().model_post_init(context)
        config = self.config
        self._flip = TrainerScorer(
            config.target, timeout=config.timeout, on_failure=config.on_failure, **config.options
        )

    async def verify(self, body: FlipVerifyRequest) -> FlipVerifyResponse:
        """Score the answer of a rollout.

        Returns:
            The rollout with `reward`, the F1, and precision and recall as `reward_components`. A
            row whose instruction could not be inferred has `on_failure`, and `mask_sample` with the
            reason, unless it is the response that has no text.

        Raises:
            JudgeError: the server or the engine cannot be reached: NeMo Gym puts the row aside, to
                be tried again.
        """
        rollout = body.model_dump()
        prompt = rollout["responses_create_params"]["input"]
        if self.config.instruction_key is not None:
            prompt = rollout.get(self.config.instruction_key)
        try:
            [row] = await self._flip.chats([prompt], [rollout["response"]["output"]])
        except UnavailableError as error:
            raise JudgeError(str(error)) from error
        return FlipVerifyResponse(**{**rollout, **_verdict(row)})


def _verdict(row: ScoredRow) -> dict[str, Any]:
    found = figures(row)
    kind = _KINDS.get(row["status"].partition("+")[0])
    return {
        "reward": row["reward"],
        "reward_components": {key: found[key] for key in ("flip_precision", "flip_recall")},
        "mask_sample": kind is not None,
        "failure_kind": kind,
        "failure_reason": (row["error"] or row["status"]) if failed(row["status"]) else None,
        "flip_inferred": row["inferred"],
        "flip_status": row["status"],
        **found,
    }
