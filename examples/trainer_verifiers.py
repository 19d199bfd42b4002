"""verifiers and prime-rl: the calls that a rubric and a task make.

Up to verifiers 0.1:

    rubric = vf.Rubric(funcs=[FlipRewards("http://127.0.0.1:8000").flip])    # or .flip_group

From 0.2 on, in a configuration file, with FLIPFAST_URL for a server:

    [env.taskset.task.rewards.flip]
    fn = "flipfast.trainers.verifiers:flip_trace"
"""

import asyncio
from types import SimpleNamespace

from flipfast.trainers.verifiers import FlipRewards

rewards = FlipRewards(timeout=120)


async def main() -> None:
    prompt = "How do I make banana bread?"
    replies = [
        "To make banana bread, mash three ripe bananas and mix them with flour and eggs.",
        "The weather in Oslo on Monday will be mild.",
    ]
    print(await rewards.flip(prompt=prompt, completion=replies[0], answer="", state={}))
    print(await rewards.flip_group(prompts=[prompt] * 2, completions=replies))
    data = SimpleNamespace(prompt=prompt, system_prompt=None)
    trace = SimpleNamespace(task=SimpleNamespace(data=data), last_reply=replies[0])
    print(await rewards.flip_trace(trace))


asyncio.run(main())
