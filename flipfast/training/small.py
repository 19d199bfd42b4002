"""`python -m flipfast.training.small`: train an adapter for SmolLM2-135M-Instruct as an inverter.

LoRA (Hu et al. 2021) on all products, on the dequantised weights of the very file that it will be
used with. The prompt is the direct style's; the loss counts the instruction's tokens alone.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch.nn import functional as F

from flipfast.config import FlipConfig
from flipfast.engine.models.gguf.checkpoint import GgufCheckpoint
from flipfast.engine.models.gguf.reader import open_gguf
from flipfast.engine.models.gguf.spec import read_gguf_config
from flipfast.engine.models.gguf.tokenizer import read_gguf_tokenizer
from flipfast.engine.ops.blocks import widened
from flipfast.prompts.rendering import PromptRenderer
from flipfast.prompts.templates import get_template
from flipfast.training.own_pairs import SOURCE as OWN
from flipfast.training.public_pairs import SOURCE as PUBLIC

MAX_RESPONSE_TOKENS = 128
# Shares of what is drawn. AlpacaEval's are what users ask, but there are few of them, and they are
# soon learnt by heart: other public instructions, and the model's own, add variety.
_SOURCES = {
    "alpaca_eval": 0.25,
    PUBLIC: 0.45,
    OWN: 0.12,
    "gpteacher_roleplay": 0.08,
    "gpteacher_codegen": 0.05,
    "gsm8k": 0.05,
}
# The share of responses of which only the first sentence is shown: users score short ones, too.
_FIRST_SENTENCE = 0.12
_SENTENCE = re.compile(r"(?:\S+\s+){2,}?\S*[.!?](?=\s|$)")
_MAX_TARGET_TOKENS = 96
_TOKENS, _WIDTHS, _POOL = 4096, (128, 192, 288), 512
_RANK, _ALPHA = 16, 32
_LR, _WARMUP_STEPS = 5e-4, 30
_DECAY = 0.5  # the share of the steps over which the learning rate falls to zero
_SAVE_EVERY_S, _LOG_EVERY = 600, 10


def held_out_instructions(*files: Path) -> frozenset[str]:
    """Instructions that are kept for evaluation, with all their responses.

    Args:
        files: gzipped JSON lines with an `instruction` or a `prompt`.
    """
    kept = set()
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                kept.add((row.get("instruction") or row["prompt"]).strip())
    return frozenset(kept)


@dataclass(frozen=True)
class Recipe:
    """What a training run is given.

    Attributes:
        base: the GGUF file.
        out: the adapter folder to write; a run that was interrupted goes on from there.
        pairs: gzipped JSON lines with `instruction`, `response` and `source`, one of _SOURCES.
        held_out: see `held_out_instructions`.
        steps: of about 4,096 tokens each. The learning rate is constant until half are taken, so
            that a run can be given more steps before it gets there.
        seed: of the adapter, the samples and their order.
    """

    base: Path
    out: Path
    pairs: tuple[Path, ...]
    held_out: tuple[Path, ...]
    steps: int
    seed: int


class Examples:
    """Draws batches of examples of similar length.

    Args:
        tokenizer: the base's.
        recipe: names the pairs, and those to leave out.
        rng: the source of every choice.
    """

    def __init__(self, tokenizer: Any, recipe: Recipe, rng: Random) -> None:
        self.rng = rng
        self._tokenizer = tokenizer
        self._renderer = PromptRenderer(
            tokenizer,
            get_template("direct"),
            date=FlipConfig.prompt_date,
            thinking=False,
            max_prompt_tokens=1024,
            max_response_tokens=MAX_RESPONSE_TOKENS,
        )
        self._rows: dict[str, dict[str, list[str]]] = {source: {} for source in _SOURCES}
        held_out = held_out_instructions(*recipe.held_out)
        for path in recipe.pairs:
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                self._read(map(json.loads, lines), held_out)
        self._instructions = {source: list(rows) for source, rows in self._rows.items() if rows}
        self._shares = [_SOURCES[source] for source in self._instructions]
        self._pool: list[tuple[list[int], int]] = []

    def _read(self, rows: Iterable[dict[str, str]], held_out: frozenset[str]) -> None:
        for row in rows:
            instruction, response = row["instruction"].strip(), row["response"]
            usable = instruction and response.strip() and instruction not in held_out
            if usable and row["source"] in self._rows:
                self._rows[row["source"]].setdefault(instruction, []).append(response)

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids (rows, width), and targets of the same shape, -100 where none is counted."""
        if len(self._pool) < _POOL // 2:
            self._pool += [self._example() for _ in range(_POOL - len(self._pool))]
            self._pool.sort(key=lambda example: len(example[0]))
        width = _width(len(self.rng.choice(self._pool)[0]))
        wanted = _TOKENS // width
        fitting = [i for i, (ids, _) in enumerate(self._pool) if len(ids) <= width][-wanted:]
        rows = [self._pool.pop(i) for i in reversed(fitting)]
        ids = torch.full((wanted, width), self._tokenizer.pad_token_id)
        targets = torch.full((wanted, width), -100)
        for row, (tokens, n_prompt) in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            targets[row, n_prompt - 1 : len(tokens) - 1] = torch.tensor(tokens[n_prompt:])
        return ids, targets

    def _example(self) -> tuple[list[int], int]:
        """Token ids of one example that fits, and how many of them are the prompt."""
        while True:
            source = self.rng.choices([*self._instructions], self._shares)[0]
            instruction = self.rng.choice(self._instructions[source])
            response = self.rng.choice(self._rows[source][instruction])
            if self.rng.random() < _FIRST_SENTENCE and (
                first := _SENTENCE.match(response.lstrip())
            ):
                response = first.group()
            target = self._tokenizer.encode(instruction, add_special_tokens=False)
            if len(target) > _MAX_TARGET_TOKENS:
                continue
            prompt = list(self._renderer.render(response).token_ids)
            ids = [*prompt, *target, self._tokenizer.eos_token_id]
            if len(ids) <= _WIDTHS[-1]:
                return ids, len(prompt)


def _width(n_tokens: int) -> int:
    return next(width for width in _WIDTHS if n_tokens <= width)


def train(recipe: Recipe) -> None:
    """Run the recipe, or the rest of it; writes the adapter and `training_log.jsonl`."""
    torch.manual_seed(recipe.seed)
    file = open_gguf(recipe.base)
    tokenizer = read_gguf_tokenizer(file)
    model = _with_adapter(_base_model(file, tokenizer), recipe)
    examples = Examples(tokenizer, recipe, Random(recipe.seed))
    Trainer(recipe, model, examples).run()


class Trainer:
    """The loop: AdamW on the adapter in float32, products in bfloat16."""

    def __init__(self, recipe: Recipe, model: Any, examples: Examples) -> None:
        self._recipe, self._model, self._examples = recipe, model, examples
        parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(parameters, lr=_LR, betas=(0.9, 0.98), weight_decay=0.0)
        self._decoder = model.base_model.model.model
        self._head = model.base_model.model.lm_head.weight
        for layer in self._decoder.layers:
            layer.compile(dynamic=False)
        self._step = 0
        self._state = recipe.out / "state.pt"
        if self._state.is_file():
            state = torch.load(self._state, weights_only=False)
            self._step = state["step"]
            self._optimizer.load_state_dict(state["optimizer"])
            examples.rng.setstate(state["rng"])

    def run(self) -> None:
        """Take all steps; log, and save now and then."""
        saved = started = time.monotonic()
        losses: list[float] = []
        tokens = 0
        while self._step < self._recipe.steps:
            ids, targets = self._examples.draw()
            losses.append(self._take_step(ids, targets))
            tokens += ids.numel()
            self._step += 1
            if self._step % _LOG_EVERY == 0:
                seconds = time.monotonic() - started
                loss = round(sum(losses) / len(losses), 4)
                self._log(step=self._step, loss=loss, tokens_per_s=round(tokens / seconds))
                losses = []
            if time.monotonic() - saved > _SAVE_EVERY_S:
                self.save()
                saved = time.monotonic()
        self.save()

    def save(self) -> None:
        """Write the adapter in bfloat16, and what a later run goes on from."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        self._model.peft_config["default"].save_pretrained(self._recipe.out)
        weights = get_peft_model_state_dict(self._model)
        kept = {name: w.detach().contiguous() for name, w in weights.items()}
        save_file(kept, self._recipe.out / "master.safetensors")
        rounded = {name: w.bfloat16() for name, w in kept.items()}
        save_file(rounded, self._recipe.out / "adapter_model.safetensors")
        state = {
            "step": self._step,
            "optimizer": self._optimizer.state_dict(),
            "rng": self._examples.rng.getstate(),
        }
        torch.save(state, self._state.with_suffix(".new"))
        self._state.with_suffix(".new").replace(self._state)

    def _take_step(self, ids: torch.Tensor, targets: torch.Tensor) -> float:
        left = 1 - self._step / self._recipe.steps
        for group in self._optimizer.param_groups:
            group["lr"] = _LR * min(1.0, (self._step + 1) / _WARMUP_STEPS, left / _DECAY)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self._decoder(input_ids=ids, use_cache=False).last_hidden_state
            counted = targets != -100
            logits = F.linear(hidden[counted], self._head)
        losses = F.cross_entropy(logits.float(), targets[counted], reduction="none")
        # A reward is a row's: without weights, long instructions would count for most.
        weights = counted.sum(dim=1, keepdim=True).rsqrt().expand_as(targets)[counted]
        ((losses * weights).sum() / weights.sum()).backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return losses.mean().item()

    def _log(self, **row: float) -> None:
        line = json.dumps(row)
        print(line, flush=True)
        with (self._recipe.out / "training_log.jsonl").open("a") as log:
            log.write(line + "\n")


def _base_model(file: Any, tokenizer: Any) -> Any:
    """The file's model in transformers, bfloat16."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **read_gguf_config(file),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    tensors = GgufCheckpoint(file).tensors()
    weights = {f"model.{name}": widened(tensor).float() for name, tensor in tensors}
    lacking, unknown = model.load_state_dict(weights, strict=False)
    assert (lacking, unknown) == (["lm_head.weight"], []), (lacking, unknown)
    model.tie_weights()
    model.set_attn_implementation("eager")  # torch's fused one is slow backwards on a CPU
    return model.bfloat16()


def _with_adapter(model: Any, recipe: Recipe) -> Any:
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    config = LoraConfig(
        r=_RANK,
        lora_alpha=_ALPHA,
        target_modules=r".*\.(q|k|v|o|gate|up|down)_proj",
        task_type="CAUSAL_LM",
        base_model_name_or_path=recipe.base.name,
    )
    adapted = get_peft_model(model, config)
    kept = recipe.out / "master.safetensors"
    if kept.is_file():
        set_peft_model_state_dict(adapted, load_file(kept))
    recipe.out.mkdir(parents=True, exist_ok=True)
    return adapted.train()


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m flipfast.training.small", description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="the GGUF file")
    parser.add_argument("--out", type=Path, required=True, help="adapter folder to write")
    parser.add_argument(
        "--pairs", type=Path, nargs="+", required=True, help="gzipped JSON lines, see own_pairs"
    )
    parser.add_argument(
        "--held-out", type=Path, nargs="*", default=(), help="gzipped JSON lines to keep out"
    )
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.pairs, arguments.held_out = tuple(arguments.pairs), tuple(arguments.held_out)
    train(Recipe(**vars(arguments)))


if __name__ == "__main__":
    main()
