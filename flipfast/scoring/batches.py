"""Makes the batch that a caller gets from its scored rows."""

from __future__ import annotations

from functools import partial

from flipfast.config import FlipConfig
from flipfast.scores import Lazy, ScoreBatch, ScoreStats
from flipfast.scoring.running import RunCounts
from flipfast.scoring.samples import Row, agreement, score_rows


def batch_of(rows: list[Row], counts: RunCounts, config: FlipConfig, seconds: float) -> ScoreBatch:
    """Make the batch of rows that have been run.

    Args:
        rows: any number, with their samples.
        counts: the counters of running them.
        config: of the reward.
        seconds: wall time since the start of the call.
    """
    scores = score_rows(rows, config.on_failure)
    shown = [row.shown for row in rows]
    several = config.samples > 1
    guards = config.copy_guard != "off"
    return ScoreBatch(
        rewards=[score.reward for score in scores],
        precision=[score.precision for score in scores],
        recall=[score.recall for score in scores],
        inferred=Lazy(sample.inferred for sample in shown),
        status=[sample.status for sample in shown],
        n_prompt_tokens=[len(row.prompt.token_ids) if row.prompt else 0 for row in rows],
        n_output_tokens=[sum(sample.n_output_tokens for sample in row.samples) for row in rows],
        errors=[sample.error for sample in shown],
        reward_std=[score.std for score in scores] if several else None,
        agreement=Lazy(partial(agreement, row) for row in rows) if several else None,
        forced_f1=[score.f1 for score in scores] if config.scoring == "likelihood" else None,
        copied=[None if row.shown.failed else row.copied for row in rows] if guards else None,
        stats=ScoreStats(
            n_rewards=len(rows),
            n_failed=sum(sample.failed for sample in shown),
            n_folded=counts.n_folded,
            n_cached=counts.n_cached,
            seconds=seconds,
            rewards_per_s=len(rows) / seconds,
            tokens_per_s=counts.n_tokens / seconds,
        ),
    )
