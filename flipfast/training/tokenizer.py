"""The embedded inverter's tokenizer: byte-level BPE with a small chat template."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flipfast.prompts.templates import STYLES, get_template

VOCAB_SIZE = 4096
MAX_LENGTH = 1024
PAD, SYSTEM, USER, ASSISTANT, END = (
    "<|pad|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
)
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- endif -%}"
)


def train_tokenizer(texts: Iterable[str]) -> Any:
    """Train the tokenizer on texts and on the wording of the prompts.

    Returns:
        A transformers tokenizer with VOCAB_SIZE entries. Every byte is in the vocabulary, so any
        text can be encoded; each digit is its own token, so numbers are copied digit by digit.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, SYSTEM, USER, ASSISTANT, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([*texts, *_prompt_texts()], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_LENGTH,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _prompt_texts() -> list[str]:
    """Return the prompts, repeated so that their words become single tokens: shorter prompts."""
    templates = [get_template(style) for style in STYLES]
    texts = [t.format() for template in templates for t in (template.system,) if t]
    texts += [template.user.format(response="") for template in templates]
    return texts * 500
