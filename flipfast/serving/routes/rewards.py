"""Our own route: a batch of items in, a row of scores for each out."""

from __future__ import annotations

from fastapi import FastAPI, Request

from flipfast.serving.observing import RequestRecord
from flipfast.serving.replies import ERRORS, Reply
from flipfast.serving.rows import RowScorer
from flipfast.serving.schema import RewardsReply, RewardsRequest
from flipfast.serving.scorer import ServedScorer


def add_rewards_route(app: FastAPI, scorer: ServedScorer, rows: RowScorer) -> None:
    """`POST /v1/rewards`."""

    @app.post("/v1/rewards", response_model=RewardsReply, responses=ERRORS, tags=["rewards"])
    async def rewards(request: Request, body: RewardsRequest) -> Reply:
        """Score responses: one row an item, in their order, whatever else is being scored."""
        record = RequestRecord.of(request.scope)
        scored = await rows.score(record, "items", body.items, body.timeout)
        return Reply({"rows": scored, "model": scorer.status().model})
