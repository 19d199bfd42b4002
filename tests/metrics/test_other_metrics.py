"""Metrics besides word F1, against libraries that have them, and by hand."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flipfast.errors import ConfigError, ModelLoadError
from flipfast.metrics import overlap_f1
from flipfast.metrics.cjk_f1 import words
from flipfast.metrics.idf_f1 import idf_f1
from flipfast.metrics.registry import FORMS, load_metric
from flipfast.metrics.rouge_l import common_subsequence
from flipfast.metrics.word_f1_py import normalize

TEXTS = [
    "Write a poem about the sea.",
    "write a long poem about sea-going ships, and the sea",
    "The cat sat on the mat; the cat was flat.",
    "the mat sat on a cat",
    "",
    "...",
    "Naïve café, 3.14 times 2!",
    "请写一首关于大海的诗。",
    "寫一首詩",
    "a a a a b",
    "b a a",
]
PAIRS = [(x, y) for x in TEXTS for y in TEXTS]
COLUMNS = [list(column) for column in zip(*PAIRS, strict=True)]
letters = st.text("abc", max_size=40)


class Tokenizer:
    """Two characters a token."""

    def encode(self, text, *, add_special_tokens):
        assert not add_special_tokens
        return [hash(text[i : i + 2]) for i in range(0, len(text), 2)]


def value(spec, x, y):
    return float(load_metric(spec, Tokenizer())([x], [y])[0])


def multiset_f1(a, b):
    same = (Counter(a) & Counter(b)).total()
    return 2 * same / (len(a) + len(b)) if same else 0.0


def test_word_f1_is_the_published_one():
    assert np.array_equal(load_metric("word_f1", None)(*COLUMNS), overlap_f1(*COLUMNS)[:, 0])


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.5, 1, 2])
def test_f_beta(beta):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    found = load_metric(f"f_beta:{beta}", None)(*COLUMNS)
    if beta == 1:
        assert np.array_equal(found, overlap_f1(*COLUMNS)[:, 0])
    for (x, y), got in zip(PAIRS, found, strict=True):
        a, b = Counter(normalize(x)), Counter(normalize(y))
        same = (a & b).total()
        # Each shared word a hit, the others misses of either kind.
        truth = [1] * b.total() + [0] * (a.total() - same)
        guess = [1] * same + [0] * (b.total() - same) + [1] * (a.total() - same)
        expected = metrics.fbeta_score(truth, guess, beta=beta, zero_division=0) if truth else 0
        assert got == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
def test_rouge_l():
    scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="rouge-score is not installed")
    oracle = scorer.RougeScorer(["rougeL"])
    expected = [oracle.score(y, x)["rougeL"].fmeasure for x, y in PAIRS]
    assert load_metric("rouge_l", None)(*COLUMNS) == pytest.approx(expected, abs=1e-15)


@given(letters, letters)
def test_the_longest_common_subsequence(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
            )
    assert common_subsequence(a, b) == table[-1][-1]


def test_bleu_has_no_brevity_penalty():
    bleu = pytest.importorskip("sacrebleu", reason="sacrebleu is not installed")
    for x, y in PAIRS:
        found = bleu.sentence_bleu(x, [y])
        if found.bp == 1:
            assert value("bleu", x, y) == pytest.approx(found.score / 100)
        assert 0 <= value("bleu", x, y) <= 1
    assert value("bleu", "write a poem about", "write a poem about the sea") == pytest.approx(1.0)


def test_char_f1():
    for x, y in PAIRS:
        a, b = ("".join(normalize(text)) for text in (x, y))
        assert value("char_f1", x, y) == pytest.approx(multiset_f1(a, b), abs=1e-15)


def test_token_f1():
    tokenizer = Tokenizer()
    for x, y in PAIRS:
        a, b = (tokenizer.encode(text, add_special_tokens=False) for text in (x, y))
        assert value("token_f1", x, y) == pytest.approx(multiset_f1(a, b), abs=1e-15)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write the poem.", ["write", "poem"]),
        ("请写诗。Write it！", ["请", "写", "诗", "write", "it"]),
        ("カメラで２枚", ["カ", "メ", "ラ", "で", "2", "枚"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("「詩」、歌", ["詩", "歌"]),
        ("𠀀𠀁", ["𠀀", "𠀁"]),
    ],
)
def test_words_without_spaces(text, expected):
    assert words(text) == expected


@given(st.text(st.characters(max_codepoint=127)))
def test_cjk_f1_of_ascii_is_word_f1(text):
    assert words(text) == normalize(text)


def test_cjk_f1_sees_what_word_f1_does_not():
    assert value("word_f1", "写一首诗", "请写一首诗") == 0.0
    assert value("cjk_f1", "写一首诗", "请写一首诗") == pytest.approx(8 / 9)


def test_idf_weights_are_scikit_learns():
    text = pytest.importorskip("sklearn.feature_extraction.text", reason="no scikit-learn")
    corpus = [x for x in TEXTS if normalize(x)]
    oracle = text.TfidfVectorizer(tokenizer=normalize, token_pattern=None, lowercase=False)
    oracle.fit(corpus)
    weight = dict(zip(oracle.get_feature_names_out(), oracle.idf_, strict=True))
    metric = idf_f1(corpus)
    for x, y in PAIRS:
        a, b = Counter(normalize(x)), Counter(normalize(y))
        unknown = math.log(1 + len(corpus)) + 1
        total = [sum(weight.get(w, unknown) * n for w, n in c.items()) for c in (a & b, a, b)]
        expected = 2 * total[0] / (total[1] + total[2]) if total[0] else 0.0
        assert metric([x], [y])[0] == pytest.approx(expected, abs=1e-12)


def test_rare_words_count_more(tmp_path):
    path = tmp_path / "instructions.txt"
    path.write_text("write a poem\nwrite a story\nwrite a list\n\nname a river\n")
    spec = f"idf_f1:{path}"
    assert value(spec, "river", "write river") > value(spec, "write", "write river")
    assert value(spec, "write river", "river write") == 1.0


@pytest.mark.parametrize(
    "spec", ["word_f1", "rouge_l", "char_f1", "cjk_f1", "f_beta:2", "token_f1"]
)
def test_a_value_does_not_depend_on_its_batch(spec):
    metric = load_metric(spec, Tokenizer())
    together = metric(*COLUMNS)
    assert together.dtype == np.float64
    assert [metric([x], [y])[0] for x, y in PAIRS] == together.tolist()
    assert len(metric([], [])) == 0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("word", "there is no metric 'word': use one of word_f1, "),
        ("f_beta", "f_beta:2"),
        ("f_beta:x", "takes a number, not 'x'"),
        ("f_beta:-1", "above 0, not -1"),
        ("f_beta:nan", "above 0, not nan"),
        ("rouge_l:3", "there is no metric"),
        ("idf_f1:/nowhere", "cannot read /nowhere"),
    ],
)
def test_wrong_names(spec, message):
    with pytest.raises(ConfigError, match=message):
        load_metric(spec, None)


def test_an_encoder_that_is_not_there():
    with pytest.raises(ModelLoadError, match="cannot load the encoder '/nowhere'"):
        load_metric("encoder:/nowhere", None)


@pytest.mark.parametrize("form", FORMS)
def test_every_metric_is_its_pairs_own(form, tmp_path):
    """What a metric of the registry must be, whoever adds it."""
    name, _, value = form.partition(":")
    if name == "encoder":
        pytest.skip("needs an encoder's weights")
    if value == "INSTRUCTIONS.txt":
        (tmp_path / value).write_text("\n".join(TEXTS), "utf-8")
        form = f"{name}:{tmp_path / value}"
    metric = load_metric(form, Tokenizer())
    found = metric(*COLUMNS)
    assert found.dtype == np.float64
    assert found.shape == (len(PAIRS),)
    assert np.isfinite(found).all()
    alone = [metric([x], [y])[0] for x, y in reversed(PAIRS)]
    assert np.array_equal(found, alone[::-1])
    text = TEXTS[0]
    assert value_of(metric, text, text) >= max(value_of(metric, other, text) for other in TEXTS)


def value_of(metric, prediction, reference):
    return float(metric([prediction], [reference])[0])
