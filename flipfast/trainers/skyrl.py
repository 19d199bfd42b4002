"""SkyRL: a single-turn environment with the FLIP reward, and credit for the turns of any other.

`skyrl_gym.register(id="flip", entry_point="flipfast.trainers.skyrl:FlipEnv", kwargs={...})` with
the options in kwargs, and `environment.env_class=flip`; the same with `FlipTurns`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flipfast.errors import InputError, MissingDependencyError
from flipfast.prompts.conversation import final_answer, join_turns
from flipfast.prompts.rollouts import strip_special
from flipfast.scores import failed
from flipfast.trainers._scorers import Target, TrainerScorer, figures

try:
    import skyrl_gym
    from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput
except ImportError as error:
    raise MissingDependencyError(f"SkyRL is needed, pip install skyrl-gym: {error}") from error


class FlipEnv(BaseTextEnv):  # type: ignore[misc]  # skyrl_gym is untyped
    """Rewards the first action by how well the instruction can be inferred from it.

    Args:
        env_config: SkyRL's; unused.
        extras: the dataset's other columns.
        target, options: see TrainerScorer. SkyRL copies them for each environment, so pass an
            address or a configuration, not an engine.
        instruction_key: the key of the true instruction, a string or messages, in `extras` or in
            its "reward_spec" or "extra_info". None uses the conversation passed to `init`.
        on_failure: the reward of an action without one; SkyRL has no missing reward.
    """

    def __init__(
        self,
        env_config: Any = None,
        extras: Mapping[str, Any] | None = None,
        *,
        target: Target = None,
        instruction_key: str | None = None,
        on_failure: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        self._scorer = TrainerScorer(target, on_failure=on_failure, **options)
        self._prompt = None if instruction_key is None else _find(extras or {}, instruction_key)
        self._reads_prompt = instruction_key is None
        self._metrics: dict[str, float] = {}

    def init(self, prompt: Any) -> tuple[Any, dict[str, Any]]:
        """Record the conversation, which goes to the policy unchanged."""
        if self._reads_prompt:
            self._prompt = prompt
        return prompt, {}

    def step(self, action: str) -> BaseTextEnvStepOutput:
        """Score one action, which ends the episode; callable from any thread.

        Raises:
            UnavailableError: the server or the engine cannot be reached.
        """
        self.turns += 1
        (row,) = self._scorer.chats_now([self._prompt], [strip_special(action)])
        self._metrics = figures(row)
        shown = {"inferred": row["inferred"], "status": row["status"], **self._metrics}
        return BaseTextEnvStepOutput(
            observations=[], reward=row["reward"], done=True, metadata=shown
        )

    def get_metrics(self) -> dict[str, float]:
        """Return the metrics that SkyRL averages over a batch and logs."""
        return self._metrics


class FlipTurns(BaseTextEnv):  # type: ignore[misc]  # skyrl_gym is untyped
    """Another environment, whose rewards of turns get the credit of the turn added.

    The credit is what a turn changes in the FLIP reward of all turns so far, as
    `flipfast.scoring.credit.turn_credit` has it. SkyRL puts a turn's reward on its last token.

    Args:
        env_config, extras: SkyRL's; passed on.
        env: the id under which the other environment is registered.
        weight: of the credit beside the environment's own reward.
        target, instruction_key, options: as for FlipEnv.
    """

    def __init__(
        self,
        env_config: Any = None,
        extras: Mapping[str, Any] | None = None,
        *,
        env: str,
        weight: float = 1.0,
        target: Target = None,
        instruction_key: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self._env = skyrl_gym.make(env, env_config=env_config, extras=extras)
        self._scorer = TrainerScorer(target, on_failure=None, **options)
        self._weight = weight
        self._prompt = None if instruction_key is None else _find(extras or {}, instruction_key)
        self._reads_prompt = instruction_key is None
        self._text = ""
        self._reward: float | None = None  # of the turns so far
        self._metrics: dict[str, float] = {}

    def init(self, prompt: Any) -> tuple[Any, dict[str, Any]]:
        """Start the other environment, and record the conversation."""
        if self._reads_prompt:
            self._prompt = prompt
        started: tuple[Any, dict[str, Any]] = self._env.init(prompt)
        return started

    def step(self, action: str) -> BaseTextEnvStepOutput:
        """Run a turn; one that cannot be scored gets no credit.

        Raises:
            UnavailableError: the server or the engine cannot be reached.
        """
        self.turns += 1
        output = self._env.step(action)
        before = self._text
        self._text = join_turns(before, final_answer(strip_special(action)))
        texts = [self._text] if self._reward is not None else [before, self._text]
        rows = self._scorer.chats_now([self._prompt] * len(texts), texts)
        rewards = [None if failed(row["status"]) else row["reward"] for row in rows]
        last, reward = self._reward if len(rows) == 1 else rewards[0], rewards[-1]
        credit = 0.0 if last is None or reward is None else reward - last
        self._reward = last if reward is None else reward
        self._metrics = {**figures(rows[-1]), "flip_credit": credit}
        metadata = {**(output["metadata"] or {}), "flip_credit": credit}
        return {**output, "reward": output["reward"] + self._weight * credit, "metadata": metadata}

    def get_metrics(self) -> dict[str, Any]:
        """Return the other environment's metrics, and those of the last turn's credit."""
        return {**self._env.get_metrics(), **self._metrics}

    def close(self) -> None:
        """Close the other environment."""
        self._env.close()


def _find(extras: Mapping[str, Any], key: str) -> Any:
    places = [extras, extras.get("reward_spec") or {}, extras.get("extra_info") or {}]
    for place in places:
        if key in place:
            return place[key]
    known = [name for place in places for name in place]
    raise InputError(
        f"the row has no {key!r}, it has {', '.join(map(repr, known)) or 'nothing'}: set "
        "instruction_key to one of them"
    )
