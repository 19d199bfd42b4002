"""Word F1 from token ids is the published F1 of the decoded text, or says that it is not."""

import gzip
import itertools
import json
import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")

from flipfast.errors import InputError
from flipfast.metrics import overlap_f1
from flipfast.metrics.reference_words import reference_words, word_hashes_py
from flipfast.metrics.token_bytes import token_bytes
from flipfast.metrics.word_f1_py import normalize
from flipfast_kernels.word_f1 import build_token_table, word_f1, word_f1_ref
from flipfast_kernels.word_hash import hash_bytes
from tests.interpreting import interpret_quickly
from tests.metrics.trained_tokenizers import END, KINDS, tokenizer

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
REFERENCE = "What is the cause of soil degradation? An athe-cat's a.b caf\xe9 the \x00a"
PLAIN = [*" \t\n\r\x0b\x0c\x1c\x1f", *"aAnNtThHeE_-.,'\"!?(){}:09zZ", "the", " the ", "a.b", "an'd"]
PLAIN += [" the-cat", "soil", " degradation", "soil soil ", "cause", " of ", "internationalization"]
HOSTILE = [*PLAIN, *"\x00\x07\x1b\x7f\\\x80\xa0\u2028\u3000\u0130\u03a3\u2014\xe9\u4e2d\U0001f600"]
HOSTILE += ["\\n", "\\u00e9", "\ufffd"]
TEXTS = [
    "the-cat sat on a.b an'd the",
    "",
    "... !?",
    "The THE a An",
    "soil\tdegradation\x0bsoil\x1fcause",
    "what is soil degradation\x00",
    "caf\xe9 soil",
    'say "soil\\ndegradation" twice',
]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    if DEVICE.type == "cpu":
        interpret_quickly(monkeypatch)


class Scored:
    """Ids scored by the kernel, and by the published definition through their text."""

    def __init__(self, kind, rows, references, json=False, compute=word_f1):
        made = tokenizer(kind)
        table = build_token_table(token_bytes(made)).to(DEVICE)
        width = max(map(len, rows), default=0)
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], dtype=torch.int32)
        lens = torch.tensor([len(row) for row in rows], dtype=torch.int32)
        words = reference_words(references).to(DEVICE)
        got = compute(ids.to(DEVICE), lens.to(DEVICE), None, None, table, words, json=json)
        self.texts = [
            made.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for row in rows
        ]
        self.decided = got.decided.tolist()
        self.scores = got.scores.cpu().numpy()
        self.expected = overlap_f1(self.texts, references)

    def check(self):
        """Every row is decided and equal, or flagged, and flagged for a reason."""
        wrong = [
            text
            for text, decided, got, expected in zip(
                self.texts, self.decided, self.scores, self.expected, strict=True
            )
            if (got.tolist() != expected.tolist() if decided else not np.isnan(got).all())
        ]
        assert wrong == []
        flagged = [t for t, decided in zip(self.texts, self.decided, strict=True) if not decided]
        assert [text for text in flagged if is_plain(text)] == []


def is_plain(text):
    """ASCII without controls besides white space, and without words that are too long."""
    return (
        text.isascii()
        and all(c.isprintable() or c.isspace() for c in text)
        and all(len(word) <= 128 for word in normalize(text))
    )


def encode(kind, text):
    return tokenizer(kind).encode(text, add_special_tokens=False)


def scored_texts(kind, texts, references=None, **options):
    rows = [encode(kind, text) for text in texts]
    return Scored(kind, rows, references or [REFERENCE] * len(texts), **options)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_every_kind(kind):
    scored = scored_texts(kind, TEXTS)
    scored.check()
    assert scored.decided[:5] == [True] * 5
    assert scored.decided[6:] == [scored.texts[6].isascii(), True]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_real_texts(kind, shared_file):
    with gzip.open(shared_file("data/pairs_train.jsonl.gz"), "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["instruction"][:400] for line in itertools.islice(lines, 900)]
    texts = random.Random(KINDS.index(kind)).sample(texts, 400)
    references = [*texts[1:], texts[0]]
    references[::2] = [f"{a[:60]} {b}" for a, b in zip(texts[::2], references[::2], strict=True)]
    scored = scored_texts(kind, texts, references, compute=word_f1_ref)
    scored.check()
    assert sum(scored.decided) > 300
    scored = scored_texts(kind, texts[:16], references[:16])
    scored.check()
    assert (scored.scores[scored.decided, 0] > 0).sum() >= 8


SLOW = settings(
    max_examples=5,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@SLOW
@given(st.lists(st.lists(st.sampled_from(HOSTILE)).map("".join), min_size=4, max_size=4))
def test_hostile_texts(kind, texts):
    scored_texts(kind, texts).check()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ids_in_any_order(kind):
    made = tokenizer(kind)
    draw = random.Random(2)
    data = token_bytes(made)
    plain = [i for i, token in enumerate(data) if token is not None and token.isascii()]
    plain = [i for i in plain if is_plain(data[i].decode())]
    rows = [draw.choices(plain, k=25) for _ in range(8)]
    rows += [draw.choices(range(len(made)), k=4) for _ in range(6)]
    rows += [[made.convert_tokens_to_ids(END), *encode(kind, "soil"), rows[0][0]]]
    scored = Scored(kind, rows, [REFERENCE] * len(rows))
    scored.check()
    assert all(scored.decided[:8])


@pytest.mark.parametrize("kind", ["embedded", "superwords", "gemma"])
def test_an_instruction_inside_json(kind):
    table = build_token_table(token_bytes(tokenizer(kind))).to(DEVICE)
    before, after = '{"inferred instruction": "', '"}\n'
    texts = ["What is soil degradation?", "the soil", "", "caf\xe9", "a\\nb"]
    rows = [encode(kind, before + text + after) for text in texts]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    lens = torch.tensor([len(row) for row in rows], dtype=torch.int32)
    begin = torch.full((5,), len(before), dtype=torch.int32)
    end = begin + torch.tensor([len(text.encode()) for text in texts], dtype=torch.int32)
    tensors = [x.to(DEVICE) for x in (ids, lens, begin, end)]
    words = reference_words([REFERENCE]).to(DEVICE)
    got = word_f1(*tensors, table, words, samples=5, json=True)
    assert got.decided.tolist() == [True, True, True, False, False]
    expected = overlap_f1(texts[:3], [REFERENCE] * 3)
    assert got.scores[:3].tolist() == expected.tolist()


@given(st.lists(st.sampled_from(PLAIN) | st.characters(max_codepoint=127)).map("".join))
def test_words_of_plain_text_are_runs_between_white_space(text):
    clean = text.lower().translate({ord(c): None for c in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"})
    if all(c.isprintable() or c.isspace() for c in text):
        assert normalize(text) == [w for w in clean.split() if w not in ("a", "an", "the")]


@given(st.lists(st.lists(st.sampled_from([*HOSTILE, "\ud800"])).map("".join)))
def test_reference_words_are_those_of_the_published_normalisation(texts):
    words = reference_words(texts)
    for array, twin in zip(vars(words).values(), word_hashes_py(tuple(texts)), strict=True):
        assert array.numpy().dtype == twin.dtype
        assert array.tolist() == twin.tolist()
    for row, text in enumerate(texts):
        begin, end = words.offsets[row : row + 2].tolist()
        hashes = words.hashes[begin:end].repeat_interleave(words.copies[begin:end]).tolist()
        published = [hash_bytes(w.encode("utf-8", "surrogatepass")) for w in normalize(text)]
        assert hashes == sorted(published)
        assert words.n_words[row] == len(published)


def test_bad_references_are_named():
    with pytest.raises(InputError, match="texts is one str"):
        reference_words("soil")
    with pytest.raises(InputError, match=r"texts\[1\] is NoneType"):
        reference_words(["soil", None])
    core = pytest.importorskip("flipfast._core")
    with pytest.raises(TypeError, match="row 0 is int"):
        core.word_hashes((3,))
