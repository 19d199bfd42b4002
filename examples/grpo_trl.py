"""A real GRPO run on a CPU: a policy of 6 million parameters learns from the embedded inverter."""

from importlib.resources import files
from random import Random

import matplotlib.pyplot as plt
import numpy as np
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from flipfast.trainers.trl import TrlReward
from flipfast.training.world import World

folder = str(files("flipfast") / "assets" / "tiny-inverter")  # its weights know words, at least
policy = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
common = {"use_cpu": True, "bf16": False, "report_to": [], "save_strategy": "no"}
common |= {"logging_steps": 1, "gradient_checkpointing": False, "lr_scheduler_type": "constant"}

# First a moment of supervised steps, on good answers and on all kinds of bad ones.
world, rng = World(), Random(0)
bad = ("off_topic", "wrong_entity", "contentless", "repeated", "truncated")
samples = [world.failure(rng, rng.choice(bad)) if i % 3 else world.good(rng) for i in range(480)]
asked = [[{"role": "user", "content": sample.instruction}] for sample in samples]
answers = [[{"role": "assistant", "content": sample.response}] for sample in samples]
sft = SFTConfig("run", max_steps=30, per_device_train_batch_size=16, learning_rate=5e-4, **common)
pairs = Dataset.from_dict({"prompt": asked, "completion": answers})
SFTTrainer(policy, sft, train_dataset=pairs).train()

# Then GRPO, on new instructions.
new = [[{"role": "user", "content": world.good(rng).instruction}] for _ in range(600)]
shape = {"per_device_train_batch_size": 32, "num_generations": 8, "max_completion_length": 32}
grpo = GRPOConfig("run", max_steps=100, learning_rate=3e-4, **shape, **common)
data = Dataset.from_dict({"prompt": new})
trainer = GRPOTrainer(policy, TrlReward(), grpo, train_dataset=data)
trainer.train()
rewards = [log["reward"] for log in trainer.state.log_history if "reward" in log]
print(f"first and last ten steps: {np.mean(rewards[:10]):.2f}, {np.mean(rewards[-10:]):.2f}")
plt.plot(rewards, ".", np.convolve(rewards, np.ones(10) / 10, "valid"), "-")
plt.savefig("grpo_trl.png")
