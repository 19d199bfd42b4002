"""open-instruct: a launcher that adds the verifier `general-flip`, and the call it gets.

    python trainer_open_instruct.py --dataset_mixer_list ...    # grpo_fast's own arguments

The dataset's `dataset` column (the verifier's name) is `general-flip`; its `ground_truth` is not
read where there is a conversation.
"""

import asyncio
import sys

from flipfast.trainers.open_instruct import FlipVerifier, TrainerScorer

# A server for all workers: TrainerScorer("http://127.0.0.1:8000").
FlipVerifier.scorer = TrainerScorer(timeout=120)

if len(sys.argv) > 1:
    import runpy

    runpy.run_module("open_instruct.grpo_fast", run_name="__main__")
else:
    call = FlipVerifier().async_call(
        tokenized_prediction=[],
        prediction="To make banana bread, mash three ripe bananas and mix them with flour.",
        label="",
        query="user: How do I make banana bread?",
    )
    print(asyncio.run(call))
