"""The batch metric: golden values, equality of the C++ core and its Python twin, bad input."""

import gzip
import json
import random
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flipfast.errors import InputError
from flipfast.metrics import CORE_AVAILABLE, overlap_f1, word_f1
from flipfast.metrics.word_f1_py import normalize
from flipfast.metrics.word_f1_py import word_f1 as twin

# Characters at which the steps of the normalisation disagree or Unicode gets in the way: letters
# whose lower case depends on neighbours or has two characters, white space beyond ASCII, controls,
# marks beside articles, digits beyond ASCII, surrogates, the ends of the internal encodings.
_TRICKY = [
    *" \t\n\x00\x07\x1b\x1c\x1f\x7f\x85\xa0\u2028\u3000\ufeff",
    *"aAnNtThHeE_-.,'\"!?()",
    *"ΣσςİıßÀéªº²½\u0307\u0301\u0345K",
    *"—–…’“”·¿。、「中文字٣Ⅷ①",
    *"\ud800\udbff\udc00\udfff\u07ff\u0800\uffff\U00010000\U0001d518\U0001f600\U0010ffff",
]
_WORDS = ["a", "an", "the", "A", "The", "then", "ban", "soil", "soil", "internationalization", "i"]
_TEXTS = st.lists(st.sampled_from(_TRICKY + _WORDS) | st.characters()).map("".join)


def core_and_twin(pairs, **options):
    """The core's rows and the twin's, as lists that compare bit for bit."""
    predictions, references = zip(*pairs, strict=True)
    core = overlap_f1(predictions, references, **options)
    return core.tolist(), [list(twin(*pair)) for pair in pairs]


def test_the_core_is_built():
    assert CORE_AVAILABLE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What is THE soil-degradation?", ["what", "is", "soildegradation"]),
        ("a_the an'a", ["athe", "ana"]),
        ("x—a—y", ["x—", "—y"]),
        ("a\x00b the\x1cend", ["\x00b", "end"]),
        ("the\u3000an\u00a0A", []),
    ],
)
def test_normalize_follows_the_published_steps(text, words):
    assert normalize(text) == words


def test_known_pairs():
    rows = overlap_f1(
        ["Define 'soil degradation'.", "Explain soil degradation, and its causes.", "", "the", "x"],
        ["what is soil degradation?", "what is soil degradation?", "", "a", "y"],
    )
    assert rows.dtype == np.float64
    assert rows.tolist() == [
        [0.5714285714285715, 2 / 3, 0.5],
        [0.4, 1 / 3, 0.5],
        [0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0],
    ]


def test_golden_values(shared_file):
    with gzip.open(shared_file("golden/f1_golden.jsonl.gz"), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    core, python = core_and_twin([(row["prediction"], row["reference"]) for row in rows])
    assert len(rows) == 4000
    assert core == python
    if unicodedata.unidata_version == "14.0.0":  # the tables the golden values were made with
        assert core == [[row["f1"], row["precision"], row["recall"]] for row in rows]


@given(st.lists(st.tuples(_TEXTS, _TEXTS), min_size=1))
def test_core_equals_twin(pairs):
    core, python = core_and_twin(pairs)
    assert core == python


@given(_TEXTS, st.randoms(use_true_random=False))
def test_core_equals_twin_on_shared_words(text, random):
    pieces = text.split(" ")
    random.shuffle(pieces)
    core, python = core_and_twin([(text, " ".join(pieces)), (text, text + " a-b c")])
    assert core == python


_CONTEXTUAL = "Σİ"  # their lower case is context's or longer: such texts go another way
_CODE_POINTS = [c for c in map(chr, range(sys.maxunicode + 1)) if c not in _CONTEXTUAL]


@pytest.mark.slow
@pytest.mark.parametrize("context", ["q{c}r {c}an{c} ", "AΣ{c} A{c}Σ "])
def test_every_code_point(context):
    chunks = [_CODE_POINTS[i : i + 64] for i in range(0, len(_CODE_POINTS), 64)] + [_CONTEXTUAL]
    pairs = []
    for chunk in chunks:
        text = "".join(context.format(c=c) for c in chunk)
        # The twin's own words overlap wholly, unless the core finds other ones; the added word
        # makes their number show.
        pairs.append((text, " ".join([*normalize(text), "more"])))
    core, python = core_and_twin(pairs)
    assert [ascii(chunk) for i, chunk in enumerate(chunks) if core[i] != python[i]] == []


def test_words_that_share_a_long_prefix_stay_apart():
    stem = "w" * 40
    words = [stem[:n] + end for n in range(1, 40) for end in ("", "x", "y")]
    pairs = [(" ".join(words), word) for word in words]
    pairs += [(word + "z", " ".join(words)) for word in words]
    core, python = core_and_twin(pairs)
    assert core == python


def test_words_that_meet_in_the_table_stay_apart():
    # One length and one beginning, and so many that they share places in the table.
    words = [f"samestem{i:05d}" for i in range(4000)]
    pairs = [(" ".join(words[::2]), " ".join(words)), (" ".join(words), " ".join(words[1000:1100]))]
    core, python = core_and_twin(pairs)
    assert core == python


@pytest.mark.slow
def test_long_texts():
    generator = random.Random(5)
    letters = "ab—\x00 .\u3000Σ中"
    texts = ["".join(generator.choices(letters, k=100_000)) for _ in range(3)] + ["a" * 70_000]
    texts += ["\x00a" * 50_000, "中a " * 30_000, "." * 5000 + "b" + " ," * 9000, "x.y" * 9000]
    core, python = core_and_twin([(a, b) for a in texts for b in texts])
    assert core == python


def _random_batch(n):
    generator = random.Random(7)
    vocabulary = [*"abcdefg", "soil", "water", "the", "Σ", "中文", "\ud800"]

    def text():
        return " ".join(generator.choices(vocabulary, k=generator.randrange(60)))

    return [(text(), text()) for _ in range(n)]


def test_values_do_not_depend_on_threads_or_neighbours():
    pairs = _random_batch(1000)
    one, python = core_and_twin(pairs, threads=1)
    assert one == python
    for threads in (0, 2, 3, 8):
        assert core_and_twin(pairs, threads=threads)[0] == one
    order = random.Random(1).sample(range(len(pairs)), len(pairs))
    shuffled, _ = core_and_twin([pairs[i] for i in order], threads=2)
    assert shuffled == [one[i] for i in order]


def test_without_the_core_the_twin_gives_the_same(monkeypatch):
    predictions, references = zip(*_random_batch(50), strict=True)
    built = overlap_f1(predictions, references)
    monkeypatch.setattr(word_f1, "CORE_AVAILABLE", False)
    np.testing.assert_array_equal(overlap_f1(predictions, references), built)
    assert overlap_f1([], []).shape == (0, 3)


def test_any_sequence_of_strings_will_do():
    class Name(str):
        __slots__ = ()

    expected = overlap_f1(["soil"], ["soil water"]).tolist()
    assert overlap_f1(("soil",), np.array(["soil water"])).tolist() == expected
    assert overlap_f1([Name("soil")], (text for text in ["soil water"])).tolist() == expected


def test_an_empty_batch_has_no_rows():
    rows = overlap_f1([], [])
    assert rows.shape == (0, 3)
    assert rows.dtype == np.float64


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a", "b"], ["a"], "2 predictions but 1 references"),
        (["a", None], ["a", "b"], r"predictions\[1\] is NoneType"),
        (["a", "b"], ["a", b"b"], r"references\[1\] is bytes"),
        ("soil", ["soil"], "predictions is one str"),
        (["soil"], "soil", "references is one str"),
        (None, ["soil"], "predictions is NoneType"),
    ],
)
def test_bad_input_is_named(predictions, references, message):
    with pytest.raises(InputError, match=message):
        overlap_f1(predictions, references)


def test_negative_threads_are_refused():
    with pytest.raises(InputError, match="threads is -1"):
        overlap_f1(["a"], ["a"], threads=-1)


def test_the_core_guards_itself():
    core = pytest.importorskip("flipfast._core")
    with pytest.raises(TypeError, match="row 1 is int"):
        core.overlap_f1(("a", 3), ("a", "b"), 1)
    with pytest.raises(ValueError, match="1 predictions but 0 references"):
        core.overlap_f1(("a",), (), 1)
