"""What speculative decoding saves on real outputs: `python -m bench.quality_drafts GROUPS`."""

from __future__ import annotations

import argparse
import json
import time
from itertools import islice
from pathlib import Path
from typing import Any

from flipfast.reward import FlipReward


def measure(model: str, groups: Path, n_groups: int) -> dict[str, Any]:
    """Score the responses of the first groups with drafts and without.

    Returns:
        `equal`: whether all rewards are the same, and for both `passes`: model passes that gave a
        sequence output tokens, summed over sequences, `output_tokens`, and `seconds`; with drafts,
        also `drafted` and `accepted` tokens.
    """
    with groups.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in islice(lines, n_groups)]
    pairs = [(row["instruction"], text) for row in rows for text in row["responses"]]
    instructions, responses = map(list, zip(*pairs, strict=True))
    found, rewards = {}, []
    for name, drafting in (("with", True), ("without", False)):
        with FlipReward(model, drafting=drafting, max_new_tokens=128) as reward:
            reward.score(instructions[:8], responses[:8])
            inverter: Any = reward.inverter
            before, started = inverter.counters, time.perf_counter()
            rewards.append(reward.score(instructions, responses).rewards)
            seconds, after = time.perf_counter() - started, inverter.counters
        found[name] = {
            "passes": after.sampling_passes - before.sampling_passes,
            "output_tokens": after.output_tokens - before.output_tokens,
            "seconds": round(seconds, 2),
            "drafted": after.drafted_tokens - before.drafted_tokens,
            "accepted": after.accepted_tokens - before.accepted_tokens,
        }
    return {"responses": len(responses), "equal": rewards[0] == rewards[1], **found}


def main() -> None:
    """Read the command line and print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.quality_drafts")
    parser.add_argument("groups", type=Path, help="JSON lines with `instruction` and `responses`")
    parser.add_argument("--model", required=True)
    parser.add_argument("--limit", type=int, default=32, help="groups")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.model, arguments.groups, arguments.limit), indent=2))


if __name__ == "__main__":
    main()
