"""OpenRLHF: the `reward_func` of a Python file.

Set `--reward.remote_url` to the path of this file, or of your own file with
`reward_func = RewardFunction("http://127.0.0.1:8000")`. With a server's address followed by
`/get_reward`, no file is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from flipfast.errors import InputError
from flipfast.prompts.rollouts import split_response
from flipfast.scores import ScoredRow, failed_row
from flipfast.trainers._scorers import Target, TrainerScorer, figures


class RewardFunction:
    """Scores rollouts through OpenRLHF's reward interface.

    Args:
        target, timeout, options: see TrainerScorer.
        on_failure: the reward of a row without one; OpenRLHF has no missing reward.
    """

    def __init__(
        self,
        target: Target = None,
        *,
        timeout: float = 300.0,
        on_failure: float = 0.0,
        **options: Any,
    ) -> None:
        self._scorer = TrainerScorer(target, timeout=timeout, on_failure=on_failure, **options)
        self._on_failure = on_failure

    def __call__(
        self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **kwargs: Any
    ) -> dict[str, Any]:
        """Score rollouts.

        Args:
            queries: each a prompt followed by its response, with special tokens.
            prompts: the prompts alone.
            labels: the true instructions. If one is not a string, or is blank, the prompt takes
                its place, including whatever the chat template put around it.
            kwargs: unused.

        Returns:
            "rewards" and "scores", float32 [n], and "extra_logs", float32 [n] each. A query that
            does not contain its prompt is a failure.

        Raises:
            UnavailableError: the server or the engine cannot be reached. OpenRLHF logs the error
                and stops because the reward is missing.
        """
        rows: list[ScoredRow] = []
        good: list[tuple[int, str, str]] = []
        for query, prompt, label in zip(queries, prompts, labels, strict=True):
            try:
                named = isinstance(label, str) and label.strip()
                good.append((len(rows), label if named else prompt, split_response(query, prompt)))
                rows.append({})
            except InputError as error:
                rows.append(failed_row(error, self._on_failure))
        if good:
            places, instructions, responses = zip(*good, strict=True)
            for place, row in zip(
                places, self._scorer.chats_now(instructions, responses), strict=True
            ):
                rows[place] = row
        rewards = torch.tensor([row["reward"] for row in rows])
        logs = [figures(row) for row in rows]
        extra = {key: torch.tensor([log[key] for log in logs]) for key in (logs[0] if logs else ())}
        return {"rewards": rewards, "scores": rewards, "extra_logs": extra}


reward_func = RewardFunction()
