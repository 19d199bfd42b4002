"""Small tokenizers of the kinds that models come with, trained when first asked for."""

import json
from functools import lru_cache
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerFast

ASSETS = Path(__file__).parents[2] / "flipfast/assets"
KINDS = ("embedded", "gpt2", "llama3", "superwords", "llama2", "gemma", "metaspace")
END, TOOL = "<|end|>", "<tool call>"  # a special token, and an added one that is text
SIZE = 1200
_MARK = "\u2581"


def corpus():
    rows = [json.loads(line) for line in (ASSETS / "demo_groups.jsonl").read_text().splitlines()]
    texts = [text for row in rows for text in (row["instruction"], *row["responses"])]
    return [
        *texts,
        *["caf\xe9 na\xefve \u2014 \u4e2d\u6587 \U0001f600 An the-cat's a.b\tx\n\n"] * 20,
    ]


@lru_cache
def tokenizer(kind):
    """A transformers tokenizer of one of the KINDS."""
    if kind == "embedded":
        return AutoTokenizer.from_pretrained(ASSETS / "tiny-inverter")
    if kind == "metaspace":
        backend = _unigram()
    else:
        backend = _sentencepiece(kind) if kind in ("llama2", "gemma") else _byte_level(kind)
    backend.add_tokens([AddedToken(TOOL, special=False)])
    backend.add_special_tokens([AddedToken(END, special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END)


def _byte_level(kind):
    backend = Tokenizer(models.BPE())
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "gpt2")
    if kind == "llama3":
        pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
        pieces = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), pieces])
    backend.pre_tokenizer = pieces  # none of regular expressions: tokens of several words
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=SIZE, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(corpus(), trainer)
    return backend


def _sentencepiece(kind):
    """BPE over marked spaces, where characters that it lacks become bytes."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    scheme = "first" if kind == "llama2" else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_MARK, prepend_scheme=scheme)
    trainer = trainers.BpeTrainer(vocab_size=SIZE, show_progress=False, limit_alphabet=90)
    backend.train_from_iterator(corpus(), trainer)
    data = json.loads(backend.to_str())
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *data["model"]["vocab"]]
    data["model"]["vocab"] = {name: i for i, name in enumerate(names)}
    backend = Tokenizer.from_str(json.dumps(data))
    strip = [decoders.Strip(" ", 1, 0)] if kind == "llama2" else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_MARK, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return backend


def _unigram():
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_MARK)
    backend.decoder = decoders.Metaspace(replacement=_MARK)
    trainer = trainers.UnigramTrainer(vocab_size=600, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(corpus(), trainer)
    return backend
