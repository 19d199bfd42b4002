"""Reads what a model's generation_config.json asks for."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig, GenerationConfig

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
    """A folder's generation config, or one derived from its config.json if it has none."""
    if (folder / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    return GenerationConfig.from_model_config(config)


def end_ids(generation_config: GenerationConfig) -> frozenset[int]:
    """The token ids that end an output; a generation config holds none, one or a list of them."""
    eos = generation_config.eos_token_id
    if eos is None:
        return frozenset()
    return frozenset(eos if isinstance(eos, list) else [eos])


def unserved_processor(generation_config: GenerationConfig) -> str | None:
    """The first option that changes a greedy run beyond the repetition penalty, as name=value."""
    for name, off in _PROCESSORS.items():
        value = getattr(generation_config, name, None)
        if value is not None and value != off:
            return f"{name}={value!r}"
    return None
