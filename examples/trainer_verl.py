"""verl: the call that its reward loop makes of each sample, and the lines for its configuration.

    reward:
      custom_reward_function:
        path: pkg://flipfast.trainers.verl
        name: compute_score
        reward_kwargs:                     # without a target: FLIPFAST_URL, else the embedded model
          target: http://127.0.0.1:8000    # flipfast serve --model Qwen/Qwen3-0.6B
          timeout: 120

`reward_model.ground_truth` of the dataset is the instruction. Where it is something else, this
manager reads the prompt itself:

      reward_manager:
        source: importlib
        name: FlipRewardManager
        module: {path: "pkg://flipfast.trainers.verl_manager"}
"""

import asyncio

from flipfast.trainers.verl import compute_score


async def main() -> None:
    answers = [
        "To make banana bread, mash three ripe bananas and mix them with flour and eggs.",
        "The weather in Oslo on Monday will be mild.",
    ]
    calls = [
        compute_score("recipes", answer, "How do I make banana bread?", {"index": index})
        for index, answer in enumerate(answers)
    ]
    for result in await asyncio.gather(*calls):
        print(result)


asyncio.run(main())
