"""flipfast's own route: takes a batch of items, returns a row of scores for each."""

from __future__ import annotations

from fastapi import FastAPI, Request

from flipfast.serving.observing import RequestRecord
from flipfast.serving.replies import ERRORS, Reply
from flipfast.serving.rows import RowScorer
from flipfast.serving.schema import RewardsReply, RewardsRequest
from flipfast.serving.scorer import ServedScorer


def add_rewards_route(app: FastAPI, scorer: ServedScorer, rows: RowScorer) -> None:
    """Add `POST /v1/rewards`."""

    @app.post("/v1/rewards", response_model=RewardsReply, responses=ERRORS, tags=["rewards"])
    async def rewards(request: Request, body: RewardsRequest) -> Reply:
        """Score responses: one row per item, in order, independent of what else is being scored."""
        record = RequestRecord.of(request.scope)
        scored = await rows.score(record, "items", body.items, body.timeout)
        return Reply({"rows": scored, "model": scorer.status().model})
