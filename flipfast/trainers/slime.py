"""slime: `--custom-rm-path flipfast.trainers.slime.rm`, for samples and for groups.

`--rm-url` is the server's address; without it see `scorer_of`. For other options write a module
with `rm = FlipRewardModel("http://127.0.0.1:8000", timeout=60).rm`. slime's built-in `remote_rm`,
with `/remote_rm` after the server's address, needs no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flipfast.errors import InputError
from flipfast.prompts.rollouts import answer_of
from flipfast.scores import ScoredRow
from flipfast.trainers._scorers import Target, TrainerScorer, figures


class FlipRewardModel:
    """Scores samples through slime's reward interface.

    Args:
        target: see TrainerScorer; None uses slime's `--rm-url` if set.
        instruction_key: the key in a sample's metadata that holds the true instruction, a string
            or messages. None uses the label, or the prompt if the label is not a string or blank.
        on_failure: the reward of a sample without one; slime has no missing reward.
        options: other options of TrainerScorer.
    """

    def __init__(
        self,
        target: Target = None,
        *,
        instruction_key: str | None = None,
        on_failure: float = 0.0,
        **options: Any,
    ) -> None:
        self._target = target
        self._instruction_key = instruction_key
        self._options = {"on_failure": on_failure, **options}

    async def rm(self, args: Any, sample: Any, **kwargs: Any) -> Any:
        """Score a sample, or a list of them.

        Args:
            args: slime's. If its `reward_key` is set, each reward is a dict with this key.
            sample: a Sample or a list of them. Status, inferred instruction and metrics are added
                to its metadata.
            kwargs: unused.

        Returns:
            One reward per sample, a float or a dict; a list if `sample` is a list.

        Raises:
            InputError: the metadata has no `instruction_key`.
            UnavailableError: the server or the engine cannot be reached.
        """
        if isinstance(sample, Sequence):
            return await self._rewards(args, sample)
        return (await self._rewards(args, [sample]))[0]

    async def _rewards(self, args: Any, samples: Sequence[Any]) -> list[Any]:
        url = (getattr(args, "rm_url", None) or "").removesuffix("/remote_rm")
        scorer = TrainerScorer(self._target or url or None, **self._options)
        prompts = [self._prompt(sample) for sample in samples]
        rows = await scorer.chats(prompts, [answer_of(sample.response) for sample in samples])
        key = getattr(args, "reward_key", None)
        return [_reward(sample, row, key) for sample, row in zip(samples, rows, strict=True)]

    def _prompt(self, sample: Any) -> Any:
        if self._instruction_key is None:
            label = sample.label
            return label if isinstance(label, str) and label.strip() else sample.prompt
        metadata = sample.metadata or {}
        if self._instruction_key not in metadata:
            raise InputError(
                f"the sample's metadata has no {self._instruction_key!r}, it has "
                f"{', '.join(map(repr, metadata)) or 'nothing'}: set instruction_key to one of them"
            )
        return metadata[self._instruction_key]


def _reward(sample: Any, row: ScoredRow, key: str | None) -> Any:
    known = {"flip_status": row["status"], "flip_inferred": row["inferred"], **figures(row)}
    sample.metadata = {**(sample.metadata or {}), **known}
    return row["reward"] if key is None else {key: row["reward"], **figures(row)}


rm = FlipRewardModel().rm
