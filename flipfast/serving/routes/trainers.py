"""Routes for trainers with their own protocol: OpenRLHF and slime."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request

from flipfast.errors import InputError
from flipfast.prompts.rollouts import answer_of, split_response
from flipfast.scores import ScoredRow, failed
from flipfast.serving.observing import RequestRecord
from flipfast.serving.options import ServerOptions
from flipfast.serving.replies import ERRORS, FieldError, Reply
from flipfast.serving.rows import RowScorer
from flipfast.serving.schema import ErrorReply, GetRewardReply, GetRewardRequest, RemoteRmRequest

_LATE: dict[int | str, dict[str, Any]] = {504: {"model": ErrorReply, "description": "Too slow."}}


def add_trainer_routes(app: FastAPI, rows: RowScorer, options: ServerOptions) -> None:
    """Add `POST /get_reward` and `POST /remote_rm`.

    Both reply with plain numbers: a row without a reward, such as one that is no text, gets
    `on_failure`, or 0.0. Special tokens at the end of a response are dropped.
    """
    shared: dict[str, Any] = {"responses": {**ERRORS, **_LATE}, "tags": ["trainers"]}
    on_failure = options.on_failure or 0.0

    def number(row: ScoredRow) -> float:
        return on_failure if row["reward"] is None else float(row["reward"])

    @app.post("/get_reward", response_model=GetRewardReply, **shared)
    async def get_reward(request: Request, body: GetRewardRequest) -> Reply:
        """OpenRLHF's remote reward model. The response is what follows the prompt in the query."""
        items = _openrlhf_items(body)
        scored = await rows.score_all(RequestRecord.of(request.scope), "query", items)
        rewards = [number(row) for row in scored]
        extra_logs = {
            "flip_failed": [float(failed(row["status"])) for row in scored],
            "flip_precision": [row["precision"] or 0.0 for row in scored],
            "flip_recall": [row["recall"] or 0.0 for row in scored],
        }
        return Reply({"rewards": rewards, "scores": rewards, "extra_logs": extra_logs})

    @app.post("/remote_rm", response_model=float, **shared)
    async def remote_rm(request: Request, body: RemoteRmRequest) -> Reply:
        """slime's remote reward model: one sample, one number."""
        if not body.model_fields_set:
            raise FieldError("prompt", "the body has no prompt, response or label: send a sample")
        item = _item(body.prompt, body.response, body.label)
        (row,) = await rows.score_all(RequestRecord.of(request.scope), "prompt", [item])
        return Reply(number(row))


def _openrlhf_items(body: GetRewardRequest) -> list[dict[str, Any] | InputError]:
    n = len(body.query)
    labels = [None] * n if body.labels is None else body.labels
    for name, column in (("prompts", body.prompts), ("labels", labels)):
        if len(column) != n:
            counts = f"{name} has {len(column)} entries, query has {n}"
            raise FieldError(name, f"{counts}: there must be as many of each")
    return [_openrlhf_item(*row) for row in zip(body.query, body.prompts, labels, strict=True)]


def _openrlhf_item(query: object, prompt: object, label: object) -> dict[str, Any] | InputError:
    try:
        return _item(prompt, split_response(query, prompt), label)
    except InputError as error:
        return error


def _item(prompt: object, response: object, label: object) -> dict[str, Any]:
    instruction = label if isinstance(label, str) and label.strip() else prompt
    return {"prompt": instruction, "completion": answer_of(response)}
