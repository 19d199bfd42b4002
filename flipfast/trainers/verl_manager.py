"""verl: a reward manager for data whose ground truth is not the instruction.

`reward.reward_manager.source=importlib`, `name=FlipRewardManager`,
`module.path=pkg://flipfast.trainers.verl_manager`; options go into
`reward.custom_reward_function.reward_kwargs`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from flipfast.errors import MissingDependencyError
from flipfast.trainers.verl import compute_score as flip_score

try:
    from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
except ImportError as error:
    raise MissingDependencyError(f"verl is needed, pip install verl: {error}") from error


class FlipRewardManager(NaiveRewardManager):  # type: ignore[misc]  # verl is untyped
    """Scores each response against the conversation that the policy was given.

    Args:
        config: verl's. Its `reward.custom_reward_function.reward_kwargs` are options of
            `flipfast.trainers.verl.compute_score`, with "prompt" as default `instruction_key`.
        tokenizer: decodes responses.
        compute_score: verl's; unused.
        router: verl's `reward_router_address` and `reward_model_tokenizer`; unused.
    """

    def __init__(
        self, config: Any, tokenizer: Any, compute_score: Any = None, **router: Any
    ) -> None:
        function = config.reward.get("custom_reward_function") or {}
        options = {"instruction_key": "prompt", **(function.get("reward_kwargs") or {})}
        super().__init__(config, tokenizer, partial(flip_score, **options), **router)

    async def run_single(self, data: Any) -> dict[str, Any]:
        """Score the last sequence of one sample; see `NaiveRewardManager.run_single`."""
        data = data[-1:]
        columns = data.non_tensor_batch
        if "raw_prompt" in columns:
            extra = dict(columns["extra_info"][0]) if "extra_info" in columns else {}
            extra["prompt"] = list(columns["raw_prompt"][0])
            columns["extra_info"] = np.array([extra], dtype=object)
        result: dict[str, Any] = await super().run_single(data)
        return result
