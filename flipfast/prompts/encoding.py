"""Encodes untrusted text to token ids, so that it never becomes a special token."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from flipfast.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenizers import Tokenizer

_GUARD = "\n"


class TextEncoder:
    """Encodes template text with added tokens, and untrusted text without them.

    Added tokens (chat marks, think tags, tool tags) are removed from a copy of the tokenizer, so
    `<|im_end|>` inside a response is spelled out with the ordinary vocabulary. Non-special added
    tokens of white space or of one character stay: some vocabularies need them for those.

    Args:
        tokenizer: a transformers tokenizer backed by the tokenizers library.

    Raises:
        ModelLoadError: the tokenizer has no such backend.
    """

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelLoadError(
                f"{type(tokenizer).__name__} is not backed by the tokenizers library; "
                "save the model with a tokenizer.json next to it"
            )
        # Copies of our own, so that truncation or padding set elsewhere has no effect here.
        self._with_marks = _copy(backend, marks=True)
        self._plain = _copy(backend, marks=False)
        # A copy renumbers its added tokens; this maps them to the model's ids.
        self._model_ids = {
            self._plain.token_to_id(token.content): token_id
            for token_id, token in backend.get_added_tokens_decoder().items()
            if not _is_mark(token.content, special=token.special)
        }
        self._mark_ids = frozenset(
            token_id
            for token_id, token in backend.get_added_tokens_decoder().items()
            if _is_mark(token.content, special=token.special)
        )
        # SentencePiece-like tokenizers put a space before a text. A piece in the middle of a
        # prompt must not get one, so it is encoded after a line break that is then cut off.
        self._adds_space = self._plain.encode("a").tokens[0][:1] in ("▁", "Ġ")
        self._guard_ids = self._plain.encode(_GUARD, add_special_tokens=False).ids

    def encode_template(self, text: str, *, first: bool) -> list[int]:
        """Encode template text, special tokens included; `first`: it starts the prompt."""
        return self._encode(self._with_marks, text, first=first)

    def encode_text(self, text: str) -> list[int]:
        """Encode a text in the middle of a prompt, without any special token.

        Lone surrogates, which have no UTF-8 form, become U+FFFD.
        """
        return [id_ for piece in self._spelt_out(without_surrogates(text)) for id_ in piece]

    def _spelt_out(self, text: str) -> Iterator[list[int]]:
        """Encode a text, cutting it inside every mark that the vocabulary's own merges produce."""
        pending = [text]
        while pending:
            part = pending.pop()
            ids = [self._model_ids.get(i, i) for i in self._encode(self._plain, part, first=False)]
            if self._mark_ids.isdisjoint(ids):
                yield ids
            elif len(part) > 1:
                pending += reversed(self._cut_inside_marks(part))

    def _cut_inside_marks(self, text: str) -> list[str]:
        """Cut once inside every mark, in a single pass, since a text may consist only of marks."""
        encoding = self._plain.encode(text, add_special_tokens=False)
        cuts = [
            start + 1
            for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if self._model_ids.get(token_id, token_id) in self._mark_ids and end - start > 1
        ] or [len(text) // 2]
        return [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    def _encode(self, tokenizer: Tokenizer, text: str, *, first: bool) -> list[int]:
        if not text:
            return []
        if first or not self._adds_space:
            return list(tokenizer.encode(text, add_special_tokens=False).ids)
        ids = tokenizer.encode(_GUARD + text, add_special_tokens=False).ids
        n_guard = len(self._guard_ids)
        if ids[:n_guard] != self._guard_ids:  # the line break has merged with the text
            return list(tokenizer.encode(text, add_special_tokens=False).ids)
        return list(ids[n_guard:])


def _copy(backend: Tokenizer, *, marks: bool) -> Tokenizer:
    """A tokenizer with the same model, which both share, with or without marks."""
    from tokenizers import Tokenizer

    copy = Tokenizer(backend.model)
    copy.normalizer, copy.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    added = [token for _, token in sorted(backend.get_added_tokens_decoder().items())]
    kept = [token for token in added if marks or not _is_mark(token.content, special=token.special)]
    for special, tokens in groupby(kept, key=lambda token: token.special):
        (copy.add_special_tokens if special else copy.add_tokens)(list(tokens))
    return copy


def _is_mark(content: str, *, special: bool) -> bool:
    """Return whether an added token is a mark: special, or of several non-blank characters."""
    return special or len(content.strip()) > 1


def without_surrogates(text: str) -> str:
    """Replace lone surrogates, which have no UTF-8 form and no tokenizer takes, with U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
