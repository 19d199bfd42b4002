"""All options of the reward in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

from flipfast.errors import ConfigError

EMBEDDED, SMALL = "embedded", "small"
_PARSERS = ("robust", "reference")
_JSON = ("free", "forced")
_SCORINGS = ("generate", "likelihood")
_COPY_GUARDS = ("off", "report", "mask", "discount")


@dataclass(frozen=True)
class FlipConfig:
    """Everything that determines what a FlipReward computes, and how.

    Attributes:
        model: "embedded" (the tiny inverter in this package), "small" (SmolLM2-135M-Instruct with
            an adapter of this package), a local folder, a hub name, or a GGUF file.
        backend: the inverter backend: a module of flipfast.backends, or the address of an
            OpenAI-compatible server ("http://host:8000") that serves `model`. None picks the
            native engine, or transformers for a model the engine does not support.
        tokenizer: a local folder or hub name with the model's tokenizer, where `model` has none or
            is only the name that the server at `backend` uses; None takes the model's own.
        adapter: a LoRA adapter in PEFT's format, a local folder or a hub name; the native engine
            merges it into the weights as it loads them.
        style: the prompt: "standalone", "conversation" or "direct" (see prompts.get_template).
            None picks what the model was made for, else "standalone".
        target: "instruction", or "system" to infer the system prompt.
        prompts_dir: a folder with the FLIP authors' prompt files, used instead of our wording.
        parser: "robust", or "reference" for the published parser with its quirks. The "direct"
            style asks for no JSON: its whole output is the instruction.
        json: "free", or "forced": the engine writes the literal parts of the object that a JSON
            style asks for, and the model only the contents of its two strings. Every output
            parses, the reasoning takes at most half of the tokens that the literals leave, and a
            cut instruction has the status "truncated". Rewards differ from those of "free". Needs
            the native engine and a style that asks for JSON.
        on_failure: the reward when no instruction could be inferred; None leaves the row out of
            the group's mean in TRL, 0.0 is what the published code gives.
        max_new_tokens: maximum output length, in tokens. None means 512 as published, 128 for the
            "direct" style, and 2048 with `thinking`.
        max_response_tokens: a longer response loses its middle; None takes the limit that the
            model's own config.json recommends, else fills the model's context.
        temperature: 0 is greedy, above 0 samples.
        top_p: nucleus sampling threshold, in (0, 1].
        top_k: sample from the k likeliest tokens; 0 means all.
        samples: inversions per response; more than one needs a temperature above 0, and the
            reward is then their mean.
        seed: sampling seed. It and the prompt determine a row's samples.
        thinking: leave the model's thinking on, if its chat template has a switch for it.
        prompt_date: what a chat template that writes today's date takes for today, such as
            "2024-07-26", so that rewards do not change from day to day. The time is midnight.
        device: "cpu", "cuda", "cuda:1"; None picks CUDA if available.
        dtype: "float32", "bfloat16" or "float16"; None picks the fastest on the device.
        weights: what the native engine multiplies with: "float" for floats of the dtype; on a CPU
            "int8" or "int4" for blocks of 32 numbers of 8 or 4 bits, and on CUDA "fp8" for 8-bit
            floats, to which it quantises the weights at load. None takes the types of a GGUF file
            on a CPU and those of an FP8 checkpoint on CUDA, and floats for other models.
        batch_size: rows run together; None picks what suits the device.
        deterministic: make the native engine's rewards bitwise independent of the batch; False
            may be faster.
        attention: the native engine's attention backend, a module of
            flipfast.engine.attention; None picks the best one the device supports.
        memory: what the native engine may allocate besides the weights: bytes, or up to 1.0 a
            fraction of the free memory; None picks what suits the device. The vllm backend takes
            bytes as its cache size, and a fraction as one of the whole GPU, weights included.
        early_stop: end an output of a JSON style once its instruction is closed, on the native
            engine with the robust parser. Same rewards, shorter outputs.
        drafting: let the native engine use speculative decoding where that is faster. The results
            are bitwise the same with and without it.
        scoring: "generate" is the FLIP reward: F1 with the instruction that the model writes.
            "likelihood" is another reward, which costs one forward pass and no decoding: the mean
            log-probability of the true instruction's tokens after the prompt, at most 0. In the
            styles that ask for JSON they directly follow `{"INFERRED INSTRUCTION": "`, with JSON
            escapes and without reasoning before them. The model's likeliest token at each place,
            given the true tokens before it, makes up `inferred`, `precision`, `recall` and
            `forced_f1`. Native engine only; ignores max_new_tokens and parser.
        metric: what compares the inferred instruction with the true one: "word_f1" is the published
            reward; others are in flipfast.metrics.registry, such as "rouge_l" or "f_beta:2". The
            batch's precision and recall stay word-level with every metric.
        likelihood_baseline: with scoring="likelihood", subtract the same mean under the prompt with
            an empty response: what the response adds, of either sign. Computed once per
            instruction and context.
        copy_guard: what to do about runs of words that a response copies from its instruction (see
            `flipfast.scoring.copying`): a copy gives the instruction away without answering it.
            "report" adds `copied`, the share of the instruction that was copied, to the batch and
            changes nothing else; "mask" inverts the response with a mark in place of each run;
            "discount" multiplies a non-negative reward by 1 - copied, and `score_best_of` then
            prunes nothing. "off" does not look for copies. The context is never changed.
        min_response_words: a response with fewer words that hold a letter or a digit is not
            inverted, and fails with the status "contentless"; 0 inverts all, an empty one too.
        tool_calls: count an assistant's tool calls as part of its text, when completions and
            prompts are messages. Otherwise a completion that only calls tools, or ends in a tool's
            turn, fails with the status "contentless".
        cache_rewards: how many inversion results to keep for later calls that bring the same
            response in the same context; 0 for none. `update_weights` drops them.
        progress: show a progress bar on standard error while a batch is scored.
        revision: branch, tag or commit of a hub model.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        ConfigError: a value is outside its range, or options do not go together.
    """

    model: str = EMBEDDED
    backend: str | None = None
    tokenizer: str | None = None
    adapter: str | None = None
    style: str | None = None
    target: str = "instruction"
    prompts_dir: str | None = None
    parser: str = "robust"
    json: str = "free"
    on_failure: float | None = None
    max_new_tokens: int | None = None
    max_response_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    samples: int = 1
    seed: int = 0
    thinking: bool = False
    prompt_date: str = "2024-07-26"  # which Llama 3.1's template takes if it is given none
    device: str | None = None
    dtype: str | None = None
    weights: str | None = None
    batch_size: int | None = None
    deterministic: bool = True
    attention: str | None = None
    memory: float | None = None
    early_stop: bool = True
    drafting: bool = True
    scoring: str = "generate"
    metric: str = "word_f1"
    likelihood_baseline: bool = False
    copy_guard: str = "off"
    min_response_words: int = 0
    tool_calls: bool = False
    cache_rewards: int = 0
    progress: bool = False
    revision: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if self.parser not in _PARSERS:
            raise ConfigError(f"unknown parser {self.parser!r}: use one of {', '.join(_PARSERS)}")
        if self.json not in _JSON:
            raise ConfigError(f"json must be one of {', '.join(_JSON)}, not {self.json!r}")
        if self.json == "forced" and self.thinking:
            raise ConfigError("json='forced' leaves no room for thinking=True: drop one of the two")
        if self.on_failure is not None and not math.isfinite(self.on_failure):
            raise ConfigError(f"on_failure must be None or a finite number, not {self.on_failure}")
        if self.samples > 1 and self.temperature <= 0:
            raise ConfigError(
                f"samples={self.samples} with temperature={self.temperature} would give the same "
                "sample again and again: raise the temperature"
            )
        self._check_date()
        self._check_scoring()
        if self.copy_guard not in _COPY_GUARDS:
            known = ", ".join(_COPY_GUARDS)
            raise ConfigError(f"copy_guard must be one of {known}, not {self.copy_guard!r}")
        for name in ("cache_rewards", "min_response_words"):
            value = getattr(self, name)
            if value < 0:
                raise ConfigError(f"{name} must be 0 or more, not {value}")
        for name in ("max_new_tokens", "max_response_tokens", "batch_size", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")

    def _check_date(self) -> None:
        try:
            date.fromisoformat(self.prompt_date)
        except (TypeError, ValueError):
            raise ConfigError(
                f"prompt_date must be a date such as '2024-07-26', not {self.prompt_date!r}"
            ) from None

    def _check_scoring(self) -> None:
        if self.scoring not in _SCORINGS:
            known = ", ".join(_SCORINGS)
            raise ConfigError(f"unknown scoring {self.scoring!r}: use one of {known}")
        if self.scoring == "generate":
            if self.likelihood_baseline:
                raise ConfigError("likelihood_baseline=True goes with scoring='likelihood' alone")
            return
        if self.copy_guard == "discount":
            raise ConfigError(
                "copy_guard='discount' is a share of a reward, and scoring='likelihood' gives "
                "logarithms: take 'mask' or 'report'"
            )
        for name in ("temperature", "samples", "thinking", "json", "metric"):
            usual, value = getattr(FlipConfig, name), getattr(self, name)
            if value != usual:
                raise ConfigError(
                    f"scoring='likelihood' writes nothing: leave {name} at {usual!r}, not {value!r}"
                )

    def with_options(self, options: dict[str, Any]) -> FlipConfig:
        """Return a copy with some options changed.

        Raises:
            ConfigError: an option does not exist, or a value is outside its range.
        """
        known = [field.name for field in fields(self)]
        unknown = [name for name in options if name not in known]
        if unknown:
            raise ConfigError(f"unknown option {unknown[0]!r}: the options are {', '.join(known)}")
        return replace(self, **options)


def resolve(
    model: str | Path | FlipConfig | None, config: FlipConfig | None, options: dict[str, Any]
) -> FlipConfig:
    """Build the configuration from a constructor's arguments.

    Args:
        model: "embedded", a local folder, a hub name, or a FlipConfig, which replaces `config`;
            None keeps the config's.
        config: the options to start from; None for the defaults.
        options: single options that override the configuration.

    Raises:
        ConfigError: an option does not exist, or a value is outside its range.
    """
    if isinstance(model, FlipConfig):
        config = model
    elif model is not None:
        options = {**options, "model": str(model)}
    return (config or FlipConfig()).with_options(options)
