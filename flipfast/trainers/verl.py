"""verl: a reward function for its reward loop, one sample per call, and one for whole batches.

`reward.custom_reward_function.path=pkg://flipfast.trainers.verl`, `name=compute_score`; options go
into `reward_kwargs`. `verl_manager` has a reward manager that reads the prompt itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flipfast.errors import InputError
from flipfast.scores import ScoredRow
from flipfast.scoring import background
from flipfast.trainers._scorers import TrainerScorer, figures


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    instruction_key: str | None = None,
    reward_router_address: str | None = None,
    reward_model_tokenizer: Any = None,
    **options: Any,
) -> dict[str, Any]:
    """Score one response for verl's reward loop.

    Args:
        data_source: unused.
        solution_str: the response.
        ground_truth: the true instruction. If it is not a string, or is blank,
            `extra_info["prompt"]`, a string or messages, takes its place.
        extra_info: the dataset's column of this name.
        instruction_key: the key of `extra_info` that holds the instruction, instead of both.
        reward_router_address, reward_model_tokenizer: verl's; unused.
        options: options of TrainerScorer: target, timeout, on_failure (0.0: verl has no missing
            reward), and those of the engine or the client.

    Returns:
        "score", "inferred", "status", "flip_failed", "flip_precision", "flip_recall".

    Raises:
        InputError: `extra_info` has no `instruction_key`.
        UnavailableError: the server or the engine cannot be reached.
    """
    prompt = _prompt(ground_truth, extra_info or {}, instruction_key)
    (row,) = await TrainerScorer(**options).chats([prompt], [solution_str])
    return _result(row)


def compute_score_batch(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Mapping[str, Any] | None],
    *,
    instruction_key: str | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Score a batch for verl's legacy `batch` manager; see `compute_score`."""
    prompts = [
        _prompt(truth, extra or {}, instruction_key)
        for truth, extra in zip(ground_truths, extra_infos, strict=True)
    ]
    scorer = TrainerScorer(**options)
    return [_result(row) for row in background.run(scorer.chats(prompts, list(solution_strs)))]


def _prompt(ground_truth: Any, extra: Mapping[str, Any], key: str | None) -> Any:
    if key is not None and key not in extra:
        raise InputError(
            f"extra_info has no {key!r}, it has {', '.join(map(repr, extra)) or 'nothing'}: set "
            "instruction_key to one of them"
        )
    named = isinstance(ground_truth, str) and ground_truth.strip()
    prompt: Any = extra[key] if key is not None else ground_truth if named else extra.get("prompt")
    # Lists arrive from Parquet files as arrays.
    return getattr(prompt, "tolist", lambda: prompt)()


def _result(row: ScoredRow) -> dict[str, Any]:
    shown = {"inferred": row["inferred"], "status": row["status"]}
    return {"score": row["reward"], **shown, **figures(row)}
