"""OpenRLHF: a reward file, and the call that OpenRLHF makes of it.

    --reward.remote_url /path/to/trainer_openrlhf.py --data.label_key instruction

With an address in place of the file there is nothing to write, `flipfast serve` has the route:

    --reward.remote_url http://127.0.0.1:8000/get_reward
"""

from flipfast.trainers.openrlhf import RewardFunction

# A server for all workers: RewardFunction("http://127.0.0.1:8000").
reward_func = RewardFunction(timeout=120)

if __name__ == "__main__":
    prompt = "<|im_start|>user\nHow do I make banana bread?<|im_end|>\n<|im_start|>assistant\n"
    response = "To make banana bread, mash three ripe bananas and mix them with flour and eggs."
    query = prompt + response + "<|im_end|>"
    print(reward_func([query], [prompt], ["How do I make banana bread?"]))
