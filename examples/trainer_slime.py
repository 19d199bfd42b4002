"""slime: a reward model of one's own, and the calls that slime makes of it.

--custom-rm-path trainer_slime.rm --label-key instruction        # this file on PYTHONPATH
--custom-rm-path flipfast.trainers.slime.rm --rm-url http://127.0.0.1:8000     # without a file
--rm-type remote_rm --rm-url http://127.0.0.1:8000/remote_rm     # without this package
"""

import asyncio
from types import SimpleNamespace

from flipfast.trainers.slime import FlipRewardModel

# A server for all workers: FlipRewardModel("http://127.0.0.1:8000").
rm = FlipRewardModel(timeout=120).rm


def sample(response: str) -> SimpleNamespace:
    """What the reward reads of slime's Sample."""
    prompt = "How do I make banana bread?"
    return SimpleNamespace(prompt=prompt, label=None, response=response, metadata={})


async def main() -> None:
    args = SimpleNamespace(rm_url=None, reward_key=None)
    good = sample("To make banana bread, mash three ripe bananas and mix them with flour.")
    bad = sample("The weather in Oslo on Monday will be mild.")
    print(await rm(args, good))
    print(await rm(args, [good, bad]), bad.metadata)


if __name__ == "__main__":
    asyncio.run(main())
