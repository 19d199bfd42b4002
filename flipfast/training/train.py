"""Trains the embedded inverter: a Qwen3-shaped decoder on (response, instruction) pairs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch.nn import functional as F

from flipfast.prompts.rendering import PromptRenderer
from flipfast.prompts.templates import STYLES, get_template
from flipfast.training.data import Example, RealText, world_example
from flipfast.training.tokenizer import END, MAX_LENGTH, PAD, VOCAB_SIZE, train_tokenizer
from flipfast.training.world import World

MAX_RESPONSE_TOKENS = 240
_ROWS, _TOKENS, _POOL = 13, 320, 24
_EARLY = 0.2  # share of the run before real pairs come in
_SOURCES, _EARLY_MIX, _LATE_MIX = ("world", "pseudo", "pair"), (0.7, 0.3, 0.0), (0.25, 0.25, 0.5)
_RESPONSE_WEIGHT = 0.2  # reading the response is learnt along with inverting it
_STYLE_WEIGHTS = {"standalone": 1, "conversation": 1, "direct": 8}
_MUON_LR, _ADAM_LR, _WARMUP_STEPS = 3e-3, 3e-3, 200
_SAVE_EVERY_S, _LOG_EVERY = 300, 50


@dataclass(frozen=True)
class Recipe:
    """What a training run is given.

    Attributes:
        out: the model folder to write.
        minutes: how long to train; the learning rate falls to zero over the last 40 %.
        pairs: real pairs (see RealText), or None for the closed world alone.
        resume: a model folder to go on from, or None to start afresh.
        seed: of the weights, the samples and their order.
        device: a torch device.
    """

    out: Path
    minutes: float
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
        model = AutoModelForCausalLM.from_pretrained(recipe.resume, dtype=torch.float32)
    else:
        tokenizer = train_tokenizer(_tokenizer_texts(world, real, rng))
        model = _new_model(tokenizer)
    Trainer(recipe, model, tokenizer, Batches(tokenizer, world, real, rng)).run()


@dataclass(frozen=True)
class Batch:
    """Packed rows, each tensor (rows, tokens).

    Attributes:
        ids: token ids.
        weights: of each token in the loss.
        positions: within the token's own example.
        documents: a number an example; tokens see their own example only.
    """

    ids: torch.Tensor
    weights: torch.Tensor
    positions: torch.Tensor
    documents: torch.Tensor


class Batches:
    """Draws rows packed with examples; what they hold depends on the run's progress, 0 to 1."""

    def __init__(self, tokenizer: Any, world: World, real: RealText | None, rng: Random) -> None:
        self._world, self._real, self._rng = world, real, rng
        self._tokenizer = tokenizer
        self._renderers = {
            style: PromptRenderer(
                tokenizer,
                get_template(style),
                thinking=False,
                max_prompt_tokens=MAX_LENGTH,
                max_response_tokens=MAX_RESPONSE_TOKENS,
            )
            for style in STYLES
        }
        self._template_lengths = {s: len(r.render("").token_ids) for s, r in self._renderers.items()}
        self._pool: list[tuple[list[int], list[float]]] = []

    def draw(self, progress: float) -> Batch:
        """Return the next batch."""
        rows = [self._row(progress) for _ in range(_ROWS)]
        ids, weights, positions, documents = (torch.tensor(field) for field in zip(*rows))
        return Batch(ids, weights, positions, documents)

    def _row(self, progress: float) -> tuple[list[int], list[float], list[int], list[int]]:
        """Fill a row from a pool of examples, the longest that still fits first."""
        ids: list[int] = []
        weights: list[float] = []
        positions: list[int] = []
        documents: list[int] = []
        while True:
            while len(self._pool) < _POOL:
                self._pool.append(self._encoded(progress))
            fitting = [i for i, (e, _) in enumerate(self._pool) if len(e) <= _TOKENS - len(ids)]
            if not fitting:
                n_pad = _TOKENS - len(ids)
                pad = [-1] * n_pad  # a document of its own, with no weight
                return ids + [0] * n_pad, weights + [0.0] * n_pad, positions + [0] * n_pad, (
                    documents + pad
                )
            # A row's first example is any, or the long ones would always come first.
            best = fitting[0] if not ids else max(fitting, key=lambda i: len(self._pool[i][0]))
            example_ids, example_weights = self._pool.pop(best)
            documents += [len(positions)] * len(example_ids)
            positions += range(len(example_ids))
            ids += example_ids
            weights += example_weights

    def _encoded(self, progress: float) -> tuple[list[int], list[float]]:
        """Token ids and loss weights of one example that fits a row."""
        while True:
            example = self._example(progress)
            style = self._rng.choices([*_STYLE_WEIGHTS], [*_STYLE_WEIGHTS.values()])[0]
            answer = example.target
            if style != "direct":
                pair = {"REASONING": example.reasoning, "INFERRED INSTRUCTION": example.target}
                answer = json.dumps(pair, ensure_ascii=False)
            prompt = self._renderers[style].render(example.response).token_ids
            target = self._tokenizer.encode(answer + END)
            if len(prompt) + len(target) > _TOKENS:
                continue
            n_template = self._template_lengths[style]
            n_response = len(prompt) - n_template
            weights = [0.0] * n_template + [_RESPONSE_WEIGHT] * n_response + [1.0] * len(target)
            return prompt + target, weights

    def _example(self, progress: float) -> Example:
        """Copying is learnt first, on short texts; real pairs come in later."""
        if self._real is None:
            return world_example(self._world, self._rng)
        early = progress < _EARLY
        kind = self._rng.choices(_SOURCES, _EARLY_MIX if early else _LATE_MIX)[0]
        if kind == "world":
            return world_example(self._world, self._rng)
        if kind == "pair":
            return self._real.pair(self._rng, max_words=60)
        longest = 50 if early else 170
        return self._real.pseudo(self._rng, max_words=self._rng.randrange(12, longest))


class Trainer:
    """The loop: Muon for the matrices, AdamW for the rest, bfloat16 products."""

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
        """Train until the time is up."""
        started = saved = time.monotonic()
        step, tokens, losses = 0, 0, []
        seconds = self._recipe.minutes * 60
        while (elapsed := time.monotonic() - started) < seconds:
            progress = elapsed / seconds
            scale = min(1.0, (step + 1) / _WARMUP_STEPS, (1 - progress) / 0.4)
            # A resumed run has learnt to copy already.
            batch = self._batches.draw(1.0 if self._recipe.resume else progress)
            losses.append(self._step(batch, scale))
            step, tokens = step + 1, tokens + int((batch.documents >= 0).sum())
            if step % _LOG_EVERY == 0:
                mean = sum(losses) / len(losses)
                self._log(step=step, tokens=tokens, seconds=round(elapsed), loss=round(mean, 4))
                losses = []
            if time.monotonic() - saved > _SAVE_EVERY_S:
                self.save()
                saved = time.monotonic()
        self.save()

    def save(self) -> None:
        """Write the weights in bfloat16, the tokenizer, and the style the model is made for."""
        config = self._model.config
        # Read by FlipReward where the user names neither style nor length.
        config.flipfast = {"style": "direct", "max_response_tokens": MAX_RESPONSE_TOKENS}
        state = {k: v.to(torch.bfloat16) for k, v in self._model.state_dict().items()}
        del state["lm_head.weight"]  # tied to the embedding
        config.dtype = torch.bfloat16
        self._model.save_pretrained(self._recipe.out, state_dict=state)
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
    from transformers import Qwen3Config, Qwen3ForCausalLM

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
        attn_implementation="eager",  # the fastest backward pass on a CPU at these lengths
    )
    return Qwen3ForCausalLM(config)


def _tokenizer_texts(world: World, real: RealText | None, rng: Random) -> list[str]:
    drawn = [world.good(rng) for _ in range(20_000)]
    texts = [text for sample in drawn for text in (sample.instruction, sample.response)]
    if real:
        texts += [text for pair in rng.sample(real.pairs, 8_000) for text in pair]
    return texts
