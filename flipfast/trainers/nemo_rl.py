"""NeMo-RL: a single-turn environment, as a Ray actor.

Call `register()` before the trainer sets up its data. Options go under `env.flip` in its
configuration, and a dataset's `env_name` is `flip`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flipfast.errors import MissingDependencyError
from flipfast.scores import ScoredRow
from flipfast.trainers._scorers import TrainerScorer, figures

try:
    import ray
    import torch
    from nemo_rl.environments.interfaces import EnvironmentInterface, EnvironmentReturn
except ImportError as error:
    raise MissingDependencyError(
        f"NeMo-RL is needed: pip install 'nemo-rl @ git+https://github.com/NVIDIA-NeMo/RL': {error}"
    ) from error


class FlipEnvironment(EnvironmentInterface):  # type: ignore[misc]  # NeMo-RL is untyped
    """Rewards an answer by how well the instruction can be inferred from it.

    Args:
        cfg: options of TrainerScorer, plus `instruction_key`, the key in a sample's metadata that
            holds the true instruction, a string or messages ("ground_truth" by default), and
            `parts`, whether the rewards are precision and recall in place of F1, a dictionary
            that NeMo-RL takes from 0.8 on (False by default). NeMo-RL has no missing reward: a
            row without one gets `on_failure`, 0.0 by default, and 0.0 for its parts.
    """

    def __init__(self, cfg: dict[str, Any]) -> None:
        options = dict(cfg)
        self._key = options.pop("instruction_key", "ground_truth")
        self._parts = options.pop("parts", False)
        self._scorer = TrainerScorer(**options)
        self._logged: list[dict[str, float]] = []

    def step(
        self, message_log_batch: Sequence[list[dict[str, Any]]], metadata: Sequence[dict[str, Any]]
    ) -> EnvironmentReturn:
        """Score the last assistant turn of each conversation, which ends every episode.

        Args:
            message_log_batch: conversations. Their user turns are wrapped in a chat template, so
                the instruction comes from the metadata instead.
            metadata: the `extra_env_info` of each. A row without the instruction is a failure.

        Returns:
            NeMo-RL's tuple: rewards float32 [n], or of that the parts by the keys
            "reward/flip_precision" and "reward/flip_recall"; terminateds bool [n], and the inferred
            instructions as answers.

        Raises:
            UnavailableError: the server or the engine cannot be reached.
        """
        prompts = [(known or {}).get(self._key) for known in metadata]
        rows = self._scorer.chats_now(prompts, message_log_batch)
        self._logged += map(figures, rows)
        told = [{"role": "environment", "content": f"Environment: {row['status']}"} for row in rows]
        return EnvironmentReturn(
            observations=told,
            metadata=list(metadata),
            next_stop_strings=[None] * len(rows),
            rewards=self._rewards(rows),
            terminateds=torch.ones(len(rows), dtype=torch.bool),
            answers=[row["inferred"] for row in rows],
        )

    def _rewards(self, rows: Sequence[ScoredRow]) -> torch.Tensor | dict[str, torch.Tensor]:
        if not self._parts:
            return torch.tensor([row["reward"] for row in rows], dtype=torch.float32)
        return {
            f"reward/{key}": torch.tensor([figures(row)[key] for row in rows], dtype=torch.float32)
            for key in ("flip_precision", "flip_recall")
        }

    def global_post_process_and_metrics(self, batch: Any) -> tuple[Any, dict[str, float]]:
        """Return the batch unchanged, with the mean metrics of the rows since the last call."""
        logged, self._logged = self._logged, []
        means = {key: sum(log[key] for log in logged) / len(logged) for key in (logged or [{}])[0]}
        return batch, {"flip_rows": float(len(logged)), **means}


FlipActor = ray.remote(max_restarts=-1, max_task_retries=-1)(FlipEnvironment)


def register(name: str = "flip") -> None:
    """Register the environment with NeMo-RL under a name."""
    from nemo_rl.distributed.ray_actor_environment_registry import ACTOR_ENVIRONMENT_REGISTRY
    from nemo_rl.distributed.virtual_cluster import PY_EXECUTABLES
    from nemo_rl.environments.utils import register_env

    path = f"{__name__}.FlipActor"
    ACTOR_ENVIRONMENT_REGISTRY[path] = PY_EXECUTABLES.SYSTEM
    register_env(name, path)
