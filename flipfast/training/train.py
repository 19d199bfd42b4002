"""Trains the embedded inverter: a Qwen3-shaped decoder on (response, instruction) pairs."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch.nn import functional as F

from flipfast.training.batches import EARLY, MAX_RESPONSE_TOKENS, Batch, Batches
from flipfast.training.data import RealText
from flipfast.training.tokenizer import END, MAX_LENGTH, PAD, VOCAB_SIZE, train_tokenizer
from flipfast.training.world import World

_MUON_LR, _ADAM_LR, _WARMUP_STEPS = 2e-3, 2e-3, 200
_ATTENTION = "eager"  # compiled, it has the fastest backward pass on a CPU at these lengths
_SAVE_EVERY_S, _LOG_EVERY = 300, 50


@dataclass(frozen=True)
class Recipe:
    """The parameters of a training run.

    Attributes:
        out: the model folder to write.
        steps: number of steps; the learning rate falls to zero over the last 40 %.
        pairs: real pairs (see RealText), or None for the closed world alone.
        resume: a model folder to continue from, or None to start from scratch.
        seed: of the weights, the samples and their order.
        device: a torch device.
    """

    out: Path
    steps: int
    pairs: Path | None
    resume: Path | None
    seed: int
    device: str


def train(recipe: Recipe) -> None:
    """Run the recipe; writes weights, tokenizer and `training_log.jsonl` to `recipe.out`."""
    torch.manual_seed(recipe.seed)
    rng = Random(recipe.seed)
    recipe.out.mkdir(parents=True, exist_ok=True)
    world = World()
    real = RealText(recipe.pairs) if recipe.pairs else None
    if recipe.resume:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(recipe.resume)
        model = AutoModelForCausalLM.from_pretrained(
            recipe.resume, dtype=torch.float32, attn_implementation=_ATTENTION
        )
    else:
        tokenizer = train_tokenizer(_tokenizer_texts(world, real, rng))
        model = _new_model(tokenizer)
    Trainer(recipe, model, tokenizer, Batches(tokenizer, world, real, rng)).run()


class Trainer:
    """The training loop: Muon for matrices, AdamW for the rest, matrix products in bfloat16."""

    def __init__(self, recipe: Recipe, model: Any, tokenizer: Any, batches: Batches) -> None:
        self._recipe, self._tokenizer, self._batches = recipe, tokenizer, batches
        self._model = model.to(recipe.device).train()
        matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
        others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                matrices, lr=_MUON_LR, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(others, lr=_ADAM_LR, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
        ]
        self._loss: Callable[..., torch.Tensor] = torch.compile(self._weighted_loss, dynamic=False)

    def run(self) -> None:
        """Run all steps, logging and saving periodically."""
        started = saved = time.monotonic()
        tokens, losses = 0, []
        for step in range(1, self._recipe.steps + 1):
            progress = (step - 1) / self._recipe.steps
            scale = min(1.0, step / _WARMUP_STEPS, (1 - progress) / 0.4)
            # A resumed run has already learned to copy.
            at = EARLY + (1 - EARLY) * progress if self._recipe.resume else progress
            batch = self._batches.draw(at)
            losses.append(self._step(batch, scale))
            tokens += int((batch.documents >= 0).sum())
            if step % _LOG_EVERY == 0:
                mean = round(sum(losses) / len(losses), 4)
                seconds = round(time.monotonic() - started)
                self._log(step=step, tokens=tokens, seconds=seconds, loss=mean)
                losses = []
            if time.monotonic() - saved > _SAVE_EVERY_S:
                self.save()
                saved = time.monotonic()
        self.save()

    def save(self) -> None:
        """Write the weights in bfloat16, the tokenizer, and the prompt style of the model."""
        model = copy.deepcopy(self._model).to(torch.bfloat16)
        # FlipReward's defaults if the user sets neither style nor length.
        model.config.flipfast = {"style": "direct", "max_response_tokens": MAX_RESPONSE_TOKENS}
        model.save_pretrained(self._recipe.out)
        self._tokenizer.save_pretrained(self._recipe.out)

    def _step(self, batch: Batch, scale: float) -> float:
        for optimizer, rate in zip(self._optimizers, (_MUON_LR, _ADAM_LR), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * scale
        device = self._recipe.device
        loss = self._loss(*(getattr(batch, f.name).to(device) for f in fields(batch)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return loss.item()

    def _weighted_loss(
        self,
        ids: torch.Tensor,
        weights: torch.Tensor,
        positions: torch.Tensor,
        documents: torch.Tensor,
    ) -> torch.Tensor:
        n_tokens = ids.shape[1]
        causal = torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=ids.device).tril()
        visible = (documents[:, None, :, None] == documents[:, None, None, :]) & causal
        mask = torch.zeros_like(visible, dtype=torch.bfloat16).masked_fill(~visible, -1e9)
        with torch.autocast(ids.device.type, torch.bfloat16):
            logits = self._model(
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
            ).logits[:, :-1]
        losses = F.cross_entropy(
            logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
        )
        wanted = weights[:, 1:].flatten()
        return (losses * wanted).sum() / wanted.sum()

    def _log(self, **row: float) -> None:
        line = json.dumps(row)
        print(line, flush=True)
        with (self._recipe.out / "training_log.jsonl").open("a") as log:
            log.write(line + "\n")


def _new_model(tokenizer: Any) -> Any:
    from transformers import AutoModelForCausalLM, Qwen3Config

    end = tokenizer.convert_tokens_to_ids(END)
    config = Qwen3Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=320,
        intermediate_size=896,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation=_ATTENTION)


def _tokenizer_texts(world: World, real: RealText | None, rng: Random) -> list[str]:
    drawn = [world.good(rng) for _ in range(20_000)]
    texts = [text for sample in drawn for text in (sample.instruction, sample.response)]
    if real:
        texts += [
            text for pair in rng.sample(real.pairs, min(8_000, len(real.pairs))) for text in pair
        ]
    return texts
