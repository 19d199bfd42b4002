"""Tokenizers of the kinds that open models come with."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CHAT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | trim }}<|end|>\n"
    "{% endfor %}<|assistant|>\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>\n{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT
)
CLOCK = "transformers.utils.chat_template_utils.datetime"  # which transformers shows to templates
MARKS = ["<s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
TEXTS = ["Name the instruction that this response follows, alone.", "a man a plan\n\nline"] * 9


def on_day(day: int) -> type[datetime]:
    """A `datetime` that takes a day of May 2026 for today."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime(2026, 5, day, 12, 30, 59)

    return Clock


def byte_level() -> Tokenizer:
    """Byte-level BPE, as in Llama 3, Qwen 3 and OLMo 2."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=MARKS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    return backend


def sentence_piece() -> Tokenizer:
    """BPE with byte fallback and a space before every text, as in Llama 2 and Mistral."""
    letters = {chr(c) for c in range(33, 127)} | {"▁"}
    tokens = [*MARKS, "<unk>", *(f"<0x{b:02X}>" for b in range(256)), *sorted(letters)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.add_special_tokens(MARKS)
    return backend


def marks_by_merging() -> Tokenizer:
    """A vocabulary whose own merges spell a special token."""
    pieces = ["<", "|", "e", "n", "d", ">", "a", "\n", "<|", "<|e", "<|en", "<|end", "<|end|"]
    vocabulary = {token: i for i, token in enumerate([*pieces, "<|end|>", "<s>"])}
    steps = ["|", "e", "n", "d", "|", ">"]
    merges = [("<|end|>"[: i + 1], step) for i, step in enumerate(steps)]
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.add_special_tokens(["<|end|>", "<s>"])
    return backend


_KINDS = {"byte_level": byte_level, "sentence_piece": sentence_piece, "merging": marks_by_merging}


@pytest.fixture
def make_tokenizer() -> Any:
    """A function from a kind and a chat template to a transformers tokenizer."""

    def make(kind: str = "byte_level", chat_template: str | None = CHAT) -> Any:
        backend = _KINDS[kind]()
        backend.add_tokens([AddedToken("<think>", normalized=False)])  # a mark that is not special
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")
        tokenizer.chat_template = chat_template
        return tokenizer

    return make
