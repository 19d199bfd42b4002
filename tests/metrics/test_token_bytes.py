"""The bytes of a tokenizer's ids: joined, they are what it decodes; what does not fit is said."""

import gzip
import json
import re
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from flipfast.metrics.token_bytes import token_bytes, verified_token_bytes, verify
from tests.metrics.trained_tokenizers import END, KINDS, TOOL, tokenizer

TEXTS = [
    'Name a river. The-cat\'s "a.b"\n\n\tAn end',
    "caf\xe9 \u4e2d\u6587 \U0001f600\u2014x \x00\x1c",
    f"call {TOOL} now",
    "  two  spaces ",
    "",
]


def decode(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("kind", KINDS)
def test_joined_bytes_are_the_decoded_text(kind):
    made = tokenizer(kind)
    data = token_bytes(made)
    assert len(data) == len(made)
    for text in TEXTS[: None if kind != "metaspace" else 1]:
        ids = made.encode(text, add_special_tokens=False)
        joined = b"".join(data[i] for i in ids).decode(errors="replace")
        bare = kind in ("llama2", "metaspace")  # these drop spaces at the start
        assert joined.lstrip(" " * bare) == decode(made, ids).lstrip(" " * bare)
    assert verify(made, data, TEXTS if kind != "metaspace" else TEXTS[:1]) is None


@pytest.mark.parametrize("kind", ["gpt2", "llama2", "gemma"])
def test_added_tokens(kind):
    made = tokenizer(kind)
    data = token_bytes(made, vocab_size=len(made) + 3)
    assert data[made.convert_tokens_to_ids(END)] == b""
    assert data[made.convert_tokens_to_ids(TOOL)] == TOOL.encode()
    assert data[len(made) :] == [None] * 3
    assert verify(made, data, TEXTS) is None
    assert len(token_bytes(made, vocab_size=9)) == 9


def test_bytes_of_a_byte_each():
    data = token_bytes(tokenizer("gpt2"))
    assert {bytes([byte]) for byte in range(256)} <= set(data)
    made = tokenizer("gemma")
    data = token_bytes(made)
    found = [data[made.convert_tokens_to_ids(f"<0x{byte:02X}>")] for byte in range(256)]
    # The text of the others hangs on their neighbours: between broken ones no byte is read.
    assert found == [*(bytes([byte]) for byte in range(128)), *[None] * 128]
    broken = [made.convert_tokens_to_ids(f"<0x{byte}>") for byte in ("FF", "41")]
    assert decode(made, broken) == "\ufffd\ufffd"


@pytest.mark.parametrize("kind", ["embedded", "llama2"])
def test_a_wrong_byte_is_found(kind):
    made = tokenizer(kind)
    data = token_bytes(made)
    at = made.encode(" river", add_special_tokens=False)[-1]
    wrong = [*data[:at], data[at] + b"s", *data[at + 1 :]]
    first, last = re.match(r"ids (\d+) to (\d+) do not", verify(made, wrong, [])).groups()
    assert int(first) <= at <= int(last)
    unknown = [*data[:at], None, *data[at + 1 :]]
    assert verify(made, unknown, []) is None
    assert verify(made, unknown, ["a river"]) is None  # rows that have it are not decided


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_that_may_be_used(kind):
    made = tokenizer(kind)
    assert verified_token_bytes(made, len(made)) == (token_bytes(made), None)


def test_a_table_that_may_not_be_used(monkeypatch):
    made = tokenizer("gpt2")
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1}, "a"))
    found = verified_token_bytes(PreTrainedTokenizerFast(tokenizer_object=backend), 2)
    assert found == ([None, None], "the tokenizer has no decoder")
    wrong = [data and data + b"s" for data in token_bytes(made)]
    monkeypatch.setattr("flipfast.metrics.token_bytes.token_bytes", lambda *_: wrong)
    assert "do not decode to the bytes" in verified_token_bytes(made, len(made)).flaw


def test_real_texts_decode_to_their_bytes(shared_file):
    with gzip.open(shared_file("data/workload_groups.jsonl.gz"), "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["instruction"] for line in lines]
    for kind in ("embedded", "gpt2", "llama3", "superwords", "llama2", "gemma"):
        made = tokenizer(kind)
        assert verify(made, token_bytes(made), texts) is None


def test_a_metaspace_token_whose_space_depends_on_its_place_is_unknown():
    backend = Tokenizer(models.WordLevel({"\u2581a": 0, "a\u2581b": 1, "\u2581": 2}, "a"))
    backend.decoder = decoders.Metaspace()
    made = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert token_bytes(made) == [b" a", None, b" "]
    assert verify(made, token_bytes(made), []) is None


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (decoders.WordPiece(), "whose decoder is WordPiece"),
        (decoders.Sequence([decoders.Fuse(), decoders.ByteLevel()]), r"Fuse \+ ByteLevel"),
        (decoders.Sequence([decoders.Replace("_", " "), decoders.Fuse()]), r"Replace \+ Fuse"),
        (None, "no decoder"),
    ],
)
def test_other_kinds_are_named(decoder, message):
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1}, "a"))
    if decoder is not None:
        backend.decoder = decoder
    made = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert token_bytes(made) == [None, None]
    assert re.search(message, verify(made, token_bytes(made), ["a"]))


def test_a_tokenizer_without_a_backend_is_named():
    class Plain(SimpleNamespace):
        def __len__(self):
            return 3

    assert token_bytes(Plain()) == [None] * 3
    assert verify(Plain(), [None] * 3, []) == "Plain is no tokenizer of the tokenizers library"
