"""The tokenizer in a GGUF file, for transformers, with the ids that llama.cpp gives."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.engine.models.gguf.reader import GgufFile
from flipfast.errors import ModelLoadError

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # in tokenizer.ggml.token_type

_GPT2 = (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",)
_LLAMA3 = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
_QWEN2 = (_LLAMA3[0].replace(r"\p{N}{1,3}", r"\p{N}"),)
# tokenizer.ggml.pre to the patterns that a text is cut by, one after the other, as in llama.cpp's
# src/llama-vocab.cpp.
_SPLITS = {
    "gpt-2": _GPT2,
    "olmo": _GPT2,
    "smollm": (r"\p{N}", *_GPT2),
    "llama-bpe": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama3": _LLAMA3,
    "dbrx": _LLAMA3,
    "smaug-bpe": _LLAMA3,
    "qwen2": _QWEN2,
}
_WHOLE_WORDS = ("llama-bpe", "llama-v3", "llama3")  # a word that is a token is not merged

# Control tokens that llama.cpp takes for the end of an output, whatever the file says.
_ENDS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>")


def read_gguf_tokenizer(file: GgufFile) -> PreTrainedTokenizerFast:
    """The tokenizer and the chat template, or all of them by their names if none is the default.

    Raises:
        UnsupportedModelError: a kind or a pre-tokenizer that is not known here.
        ModelLoadError: fields are missing or do not fit each other.
    """
    if "tokenizer.ggml.model" not in file.fields:
        raise ModelLoadError(
            f"{file.path} holds no tokenizer: name a folder or hub model that has it with "
            "tokenizer='...'"
        )
    kind = file.field("tokenizer.ggml.model", str)
    if kind == "gpt2":
        tokenizer = _byte_level(file)
    elif kind == "llama":
        tokenizer = _sentencepiece(file)
    else:
        raise UnsupportedModelError(
            f"{file.path}: a tokenizer of the kind {kind!r} is not served; served are gpt2, llama"
        )
    tokens = _tokens(file)
    _add_special(tokenizer, tokens, _types(file, tokens))
    named = {role: tokens[i] for role, i in _special_ids(file).items() if i is not None}
    _add_ends(tokenizer, file, named, tokens)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=_chat_template(file),
        name_or_path=str(file.path),
        clean_up_tokenization_spaces=False,
        **named,
    )


def read_gguf_end_ids(file: GgufFile) -> frozenset[int]:
    """Tokens that end an output: those that the file names, and those that llama.cpp knows; none
    for a file without a tokenizer.
    """
    if "tokenizer.ggml.tokens" not in file.fields:
        return frozenset()
    named = [
        file.field(f"tokenizer.ggml.{role}_token_id", (int, type(None)))
        for role in ("eos", "eot", "eom")
    ]
    tokens = _tokens(file)
    pairs = enumerate(zip(tokens, _types(file, tokens), strict=True))
    known = [i for i, (token, kind) in pairs if kind == _CONTROL and token in _ENDS]
    return frozenset(i for i in (*named, *known) if i is not None)


def _chat_template(file: GgufFile) -> str | dict[str, str] | None:
    field = "tokenizer.chat_template"
    default: str | None = file.field(field, (str, type(None)))
    if default is not None:
        return default
    names = file.field("tokenizer.chat_templates", list, [])
    return {f"{name}": file.field(f"{field}.{name}", str) for name in names} or None


def _byte_level(file: GgufFile) -> Tokenizer:
    pre = file.field("tokenizer.ggml.pre", str, "")
    if pre not in _SPLITS:
        raise UnsupportedModelError(
            f"{file.path}: the pre-tokenizer {pre!r} is not known; known are {', '.join(_SPLITS)}"
        )
    tokens = _tokens(file)
    merges = [tuple(merge.split(" ")) for merge in _list(file, "merges", str)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    try:
        model = models.BPE(vocabulary, merges, ignore_merges=pre in _WHOLE_WORDS)
    except Exception as error:
        raise ModelLoadError(f"{file.path}: tokenizer.ggml.merges: {error!s:.200}") from error
    tokenizer = Tokenizer(model)
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in _SPLITS[pre]]
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, level])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(file: GgufFile) -> Tokenizer:
    """Byte-pair encoding in which the score of the merged token says which pair goes first."""
    tokens, scores = _tokens(file), _list(file, "scores", float)
    if len(scores) != len(tokens):
        raise ModelLoadError(
            f"{file.path}: {len(scores)} scores for {len(tokens)} tokens in tokenizer.ggml"
        )
    vocabulary = {token: i for i, token in enumerate(tokens)}
    pairs = [
        (-scores[i], len(token) - cut, token[:cut], token[cut:])
        for token, i in vocabulary.items()
        for cut in range(1, len(token))
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]
    pairs.sort(key=lambda pair: pair[:2])
    unknown = next(
        (tokens[i] for i, kind in enumerate(_types(file, tokens)) if kind == _UNKNOWN), None
    )
    model = models.BPE(
        vocabulary,
        [(left, right) for *_, left, right in pairs],
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    spaces: list[Any] = [normalizers.Replace(" ", "▁")]
    before = file.field("tokenizer.ggml.add_space_prefix", bool, True)
    tokenizer.normalizer = normalizers.Sequence(
        [*([normalizers.Prepend("▁")] if before else []), *spaces]
    )
    strip = [decoders.Strip(" ", 1, 0)] if before else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _list(file: GgufFile, name: str, kind: type) -> list[Any]:
    entries: list[Any] = file.field(f"tokenizer.ggml.{name}", list)
    if not entries or not isinstance(entries[0], kind):  # the others are of its type
        raise ModelLoadError(f"{file.path}: tokenizer.ggml.{name} is no list of {kind.__name__}")
    return entries


def _tokens(file: GgufFile) -> list[str]:
    return _list(file, "tokens", str)


def _types(file: GgufFile, tokens: list[str]) -> list[int]:
    types: list[int] = file.field("tokenizer.ggml.token_type", list, [1] * len(tokens))
    if len(types) != len(tokens):
        raise ModelLoadError(
            f"{file.path}: {len(types)} token types for {len(tokens)} tokens in tokenizer.ggml"
        )
    return types


def _add_special(tokenizer: Tokenizer, tokens: list[str], types: list[int]) -> None:
    pairs = list(zip(tokens, types, strict=True))
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False, special=True) for t, kind in pairs if kind == _CONTROL]
    )
    tokenizer.add_tokens(
        [AddedToken(t, normalized=False) for t, kind in pairs if kind == _USER_DEFINED]
    )


def _special_ids(file: GgufFile) -> dict[str, int | None]:
    n_tokens = len(file.fields["tokenizer.ggml.tokens"])
    found: dict[str, int | None] = {}
    for role, name in {
        "bos_token": "bos_token_id",
        "eos_token": "eos_token_id",
        "unk_token": "unknown_token_id",
        "pad_token": "padding_token_id",
    }.items():
        value = file.field(f"tokenizer.ggml.{name}", (int, type(None)))
        if value is not None and not 0 <= value < n_tokens:
            raise ModelLoadError(
                f"{file.path}: tokenizer.ggml.{name} is {value}, there are {n_tokens} tokens"
            )
        found[role] = value
    return found


def _add_ends(
    tokenizer: Tokenizer, file: GgufFile, named: dict[str, str], tokens: list[str]
) -> None:
    """What stands before and after each text by itself."""
    usual = file.fields["tokenizer.ggml.model"] == "llama"
    bos, eos = named.get("bos_token"), named.get("eos_token")
    before = bos if file.field("tokenizer.ggml.add_bos_token", bool, usual) else None
    after = eos if file.field("tokenizer.ggml.add_eos_token", bool, False) else None
    if before is None and after is None:
        return
    single = " ".join(filter(None, (before, "$A", after)))
    special = [(token, tokens.index(token)) for token in {before, after} if token is not None]
    tokenizer.post_processor = TemplateProcessing(
        single=single, pair=f"{single} $B:1", special_tokens=special
    )
