"""verifiers and prime-rl: Rubric functions for one rollout or a group, and a reward for a trace.

Up to 0.1: `vf.Rubric(funcs=[FlipRewards("http://127.0.0.1:8000").flip])`. From 0.2:
`rewards = {"flip": {"fn": "flipfast.trainers.verifiers:flip_trace"}}` in a task's configuration, or
`await FlipRewards(...).flip_trace(trace)` in a `@vf.reward` method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flipfast.errors import InputError, NoRewardError
from flipfast.scores import ScoredRow
from flipfast.trainers._scorers import Target, TrainerScorer


class FlipRewards:
    """Rewards through verifiers' interfaces.

    Args:
        target, options: see TrainerScorer.
        instruction_key: where the true instruction is, a string or messages: "answer" or another
            column, or for a trace a field of its task. None uses the prompt.
        on_failure: the reward of a rollout without one. None raises NoRewardError: verifiers
            drops a rollout whose reward failed (up to 0.1 it counts it as 0.0 and logs it).
    """

    def __init__(
        self,
        target: Target = None,
        *,
        instruction_key: str | None = None,
        on_failure: float | None = None,
        **options: Any,
    ) -> None:
        self._scorer = TrainerScorer(target, on_failure=on_failure, **options)
        self._key = instruction_key

    async def flip(self, prompt: Any, completion: Any, **columns: Any) -> float:
        """Score one rollout.

        Raises:
            NoRewardError: there is no reward, and `on_failure` is None.
            UnavailableError: the server or the engine cannot be reached.
        """
        truth = prompt if self._key is None else _column(columns, self._key)
        return (await self._rewards([truth], [completion]))[0]

    async def flip_group(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float]:
        """Score a group of rollouts; raises as `flip` does. The column "answer" is `answers`."""
        truths = prompts if self._key is None else _column(columns, f"{self._key}s")
        return await self._rewards(truths, completions)

    async def flip_trace(self, trace: Any) -> float:
        """Score the last reply of a trace; raises as `flip` does.

        The reply of the root agent, if the harness names one; a reply without a text is a failure.
        """
        data = trace.task.data
        truth = _task_prompt(data) if self._key is None else getattr(data, self._key)
        return (await self._rewards([truth], [_last_reply(trace)]))[0]

    async def _rewards(self, prompts: Sequence[Any], completions: Sequence[Any]) -> list[float]:
        rows = await self._scorer.chats(
            [_plain(prompt) for prompt in prompts], [_plain(reply) for reply in completions]
        )
        return [_reward(row) for row in rows]


def _reward(row: ScoredRow) -> float:
    reward: float | None = row["reward"]
    if reward is None:
        raise NoRewardError(f"status {row['status']!r}: {row['error'] or 'nothing was inferred'}")
    return reward


def _column(columns: Mapping[str, Any], name: str) -> Any:
    if name not in columns:
        known = ", ".join(map(repr, columns))
        raise InputError(f"verifiers gave no {name!r}, it gave {known}: set instruction_key")
    return columns[name]


def _task_prompt(data: Any) -> Any:
    if not data.system_prompt:
        return data.prompt
    user = {"role": "user", "content": data.prompt}
    rest = [user] if isinstance(data.prompt, str) else data.prompt
    return [{"role": "system", "content": data.system_prompt}, *rest]


def _last_reply(trace: Any) -> Any:
    """Return the last reply, or its message where it has no text: the message says why."""
    if trace.last_reply or getattr(trace, "root_reply", None) is not None:
        return trace.last_reply or None
    return trace.assistant_messages[-1] if trace.assistant_messages else None


def _plain(chat: Any) -> Any:
    """Return a string, a message or messages as dicts: verifiers' own are pydantic models."""
    if chat is None or isinstance(chat, (str, dict)):
        return chat
    if hasattr(chat, "model_dump"):
        return chat.model_dump()
    return [message if isinstance(message, dict) else message.model_dump() for message in chat]


_default = FlipRewards()
flip, flip_group, flip_trace = _default.flip, _default.flip_group, _default.flip_trace
