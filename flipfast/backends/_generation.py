"""Reads what a model's generation_config.json asks for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from flipfast.errors import ModelLoadError

# Options besides the repetition penalty that change a greedy run, and the values that disable them.
_PROCESSORS = {
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
    "constraints": None,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "guidance_scale": 1.0,
    "min_length": 0,
    "min_new_tokens": 0,
    "no_repeat_ngram_size": 0,
    "remove_invalid_values": False,
    "sequence_bias": None,
    "stop_strings": None,
    "suppress_tokens": None,
    "watermarking_config": None,
}


def read_generation_config(folder: Path) -> GenerationConfig:
    """A folder's generation config, or one derived from its config.json if it has none.

    Raises:
        ModelLoadError: transformers cannot read the file.
    """
    path = folder / "generation_config.json"
    try:
        if path.is_file():
            return GenerationConfig.from_pretrained(folder, local_files_only=True)
        path = folder / "config.json"
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        return GenerationConfig.from_model_config(config)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelLoadError(f"{path}: {type(error).__name__}: {reason}") from error


def end_ids(
    named: int | Iterable[int] | None, tokenizer: PreTrainedTokenizerBase
) -> frozenset[int]:
    """The token ids that end an output.

    Args:
        named: those that the generation config names.
        tokenizer: its own end token counts, too: chat models write it where a config names another.
    """
    several = named if isinstance(named, Iterable) else [named]
    return frozenset(i for i in (*several, tokenizer.eos_token_id) if i is not None)


def stop_strings(generation_config: GenerationConfig) -> tuple[str, ...]:
    """The texts that end an output."""
    found = generation_config.stop_strings or ()
    return tuple(filter(None, [found] if isinstance(found, str) else found))


def unserved_processor(generation_config: GenerationConfig) -> str | None:
    """The first option that changes a greedy run beyond the repetition penalty, as name=value."""
    for name, off in _PROCESSORS.items():
        value = getattr(generation_config, name, None)
        if value not in (None, off, []):
            return f"{name}={value!r}"
    return None
