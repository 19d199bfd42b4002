"""Word F1 from token ids: against the text's own words, every span, and bad arguments."""

import dataclasses
import random
import string
from collections import Counter

import pytest
import torch

pytest.importorskip("triton")

from flipfast_kernels.word_f1 import (
    ReferenceWords,
    WordScores,
    build_token_table,
    word_f1,
    word_f1_ref,
)
from flipfast_kernels.word_hash import hash_bytes, power
from tests.interpreting import interpret_quickly

WORDS = [b"the", b" the", b" a", b"an", b"soil", b" deg", b"rad", b"ation", b" x", b"T"]
ODD = [b"-", b'?"}', b".\n", b"\t", b" ", b"", b"'", b" \x1c", b" big red dog ", b"x the y an z"]
UNDECIDED = [b"\xc3", b"caf\xc3\xa9", b"\x00", b"\x7f", b"a\x1bb", None, b"\\", b"so\\il"]
VOCABULARY = [*WORDS, b" soil", *ODD, *UNDECIDED]
TABLE = build_token_table(VOCABULARY)
ID = {token: i for i, token in enumerate(VOCABULARY)}
REFERENCES = [
    "what is soil degradation soil red dog x y z xx thea",
    "",
    "soil " * 9 + " ".join(f"w{i}" for i in range(70)) + " degradation t",
]


@pytest.fixture(autouse=True)
def _quick(monkeypatch, device):
    if device.type == "cpu":
        interpret_quickly(monkeypatch)


def reference_words(texts):
    """The words of lower-case texts without punctuation or articles."""
    counts = [Counter(hash_bytes(word.encode()) for word in text.split()) for text in texts]
    offsets = [0]
    for count in counts:
        offsets.append(offsets[-1] + len(count))
    return ReferenceWords(
        torch.tensor([word for count in counts for word in count], dtype=torch.int64),
        torch.tensor([n for count in counts for n in count.values()], dtype=torch.int32),
        torch.tensor(offsets, dtype=torch.int32),
        torch.tensor([count.total() for count in counts], dtype=torch.int32),
    )


def int32(values):
    return torch.tensor(values, dtype=torch.int32)


def padded(rows, width=None):
    width = max(map(len, rows), default=0) if width is None else width
    return torch.tensor([row + [-7] * (width - len(row)) for row in rows]), int32(
        [len(row) for row in rows]
    )


def make_rows(lens, seed, share=0.0):
    """Random ids, a share of them not decided, padded by ids that the table lacks."""
    draw = random.Random(seed)
    rows = []
    words = [*WORDS, *[b" soil"] * 3]
    for n in lens:
        kinds = draw.choices([words, ODD, UNDECIDED], [0.7, 0.3 - share, share], k=n)
        rows.append([ID[draw.choice(kind)] for kind in kinds])
    return padded(rows)


def spans_of(ids, lens, seed):
    draw = random.Random(seed)
    begin, end = [], []
    for row, n in zip(ids.tolist(), lens.tolist(), strict=True):
        size = sum(len(VOCABULARY[i] or b"") for i in row[:n])
        low = draw.randint(0, min(size, 9))
        high = draw.randint(max(low, size - 9), size)
        begin.append(low)
        end.append(high)
    return int32(begin), int32(end)


def poisoned(n, device):
    return WordScores(
        torch.full((n, 3), -99, dtype=torch.int32, device=device),
        torch.full((n, 3), -99.0, dtype=torch.float64, device=device),
        torch.ones(n, dtype=torch.bool, device=device),
    )


def run(device, ids, lens, spans, rows, table=TABLE, texts=REFERENCES, **options):
    given = [ids, lens, *spans, table, reference_words(texts), rows]
    given = [None if x is None else x.to(device) for x in given]
    out = poisoned(len(ids), device)
    assert word_f1(*given, out=out, **options) is out
    return out


def assert_same(got, expected):
    assert torch.equal(got.decided.cpu(), expected.decided.cpu())
    assert torch.equal(got.counts.cpu(), expected.counts.cpu())
    # NaN where not decided, the same bits elsewhere
    assert torch.equal(got.scores.cpu().nan_to_num(-1), expected.scores.cpu().nan_to_num(-1))


@pytest.mark.parametrize("spanned", [False, True])
@pytest.mark.parametrize("lens", [[0, 1, 2, 31, 3, 30, 17, 9], [32, 63, 65, 33, 0, 7], [200, 129]])
def test_equals_the_reference(lens, spanned, device):
    ids, lens = make_rows(lens, seed=len(lens))
    spans = spans_of(ids, lens, seed=1) if spanned else (None, None)
    rows = int32([i % 3 for i in range(len(lens))])
    expected = word_f1_ref(ids, lens, *spans, TABLE, reference_words(REFERENCES), rows)
    assert expected.decided.all()
    assert expected.counts[:, 0].sum() >= 3
    assert_same(run(device, ids, lens, spans, rows), expected)


@pytest.mark.slow
@pytest.mark.parametrize("json", [False, True])
@pytest.mark.parametrize("spanned", [False, True])
def test_rows_are_decided_where_the_reference_decides(spanned, json, device):
    ids, lens = make_rows([20] * 6 + [3] * 16, seed=5, share=0.1)
    spans = spans_of(ids, lens, seed=2) if spanned else (None, None)
    rows = int32([0] * len(lens))
    table = reference_words(REFERENCES)
    expected = word_f1_ref(ids, lens, *spans, TABLE, table, rows, json=json)
    assert 5 < expected.decided.sum() < 20
    assert_same(run(device, ids, lens, spans, rows, json=json), expected)


def test_known_values(device):
    texts = ["what is soil degradation"] * 2
    tokens = [b"Define 'soil", b" degrad", b"ation'.", b"Explain soil", b", and its"]
    ids, lens = padded([[0, 1, 2], [3, 1, 2, 4]])
    got = run(device, ids, lens, (None, None), None, build_token_table(tokens), texts)
    assert got.counts.tolist() == [[2, 3, 4], [2, 5, 4]]
    assert got.scores[0].tolist() == [2 * (2 / 3) * 0.5 / (2 / 3 + 0.5), 2 / 3, 0.5]
    assert got.scores[1].tolist() == [2 * 0.4 * 0.5 / (0.4 + 0.5), 0.4, 0.5]


@pytest.mark.slow
def test_words_go_on_in_the_next_block(device):
    word = [ID[t] for t in (b" deg", b"-", b"", b"rad", b"ation")]
    rows = [[ID[b"-"]] * n + word for n in (122, 123, 125, 126, 127, 250, 254)]
    rows += [[ID[b"rad"], *word * 204, ID[b" x"], ID[b"T"]]]
    ids, lens = padded(rows)
    assert int(lens[-1]) == 1023
    texts = ["degradation " * 300 + "rad"]
    got = run(device, ids, lens, (None, None), int32([0] * len(rows)), texts=texts)
    assert got.counts.tolist() == [[1, 1, 301]] * 7 + [[205, 206, 301]]


@pytest.mark.slow
def test_every_span_of_a_row(device):
    row = [ID[t] for t in (b" a", b'?"}', b"x the y an z", b"soil", b"", b"caf\xc3\xa9", b" the")]
    text = b"".join(VOCABULARY[i] for i in row)
    pairs = [(b, e) for b in range(len(text) + 1) for e in range(b, len(text) + 1)]
    pairs = [*pairs[:: len(pairs) // 90], (0, len(text)), (7, 8), (7, 7)]
    got = run(
        device,
        *padded([row] * len(pairs)),
        (int32([b for b, _ in pairs]), int32([e for _, e in pairs])),
        int32([0] * len(pairs)),
        texts=["y soil the x"],
    )
    for at, (begin, end) in enumerate(pairs):
        part = text[begin:end]
        assert bool(got.decided[at]) == part.isascii()
        if not part.isascii():
            continue
        clean = part.decode().translate(str.maketrans("", "", string.punctuation)).split()
        words = Counter(word for word in clean if word not in ("a", "an", "the"))
        same = (words & Counter(["y", "soil", "x"])).total()
        assert got.counts[at].tolist() == [same, words.total(), 4], part


@pytest.mark.slow
def test_a_row_has_the_same_bits_in_every_company(device):
    ids, lens = make_rows([9, 31, 0, 20, 5], seed=8)
    spans = spans_of(ids, lens, seed=3)
    rows = int32([2, 0, 1, 0, 0])
    whole = run(device, ids, lens, spans, rows)
    wide = torch.full((10, 77), -1, dtype=torch.int32)
    wide[::2, :31] = ids
    for at in range(5):
        one = [x[at : at + 1] for x in (ids, lens, *spans, rows)]
        alone = run(device, one[0], one[1], one[2:4], one[4])
        assert_same(alone, WordScores(*(x[at : at + 1] for x in whole)))
    # Other neighbours, width, stride and dtype of ids.
    assert_same(run(device, wide[::2], lens, spans, rows), whole)


def test_rows_find_their_references(device):
    ids, lens = padded([[ID[b"soil"]], [ID[b" x"]], [ID[b" soil"]], [ID[b"T"]]])
    texts = ["soil", "t x"]
    got = run(device, ids, lens, (None, None), None, texts=texts, samples=2)
    assert got.counts[:, 0].tolist() == [1, 0, 0, 1]
    got = run(device, ids, lens, (None, None), int32([0, 1, 1, 0]), texts=texts)
    assert got.counts[:, 0].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("size", [128, 129])
def test_longer_words_are_not_decided(size, device):
    word = b"a" * size
    tokens = [b"a" * 50, b"a" * (size - 100), b"b " + word + b" b", word, b"c" * 999]
    table = build_token_table(tokens)
    ids, lens = padded([[0, 0, 1], [2], [3], [4]])
    got = run(device, ids, lens, (None, None), int32([0] * 4), table, [word.decode()])
    assert got.decided.tolist() == [size == 128] * 3 + [False]
    if size == 128:
        assert got.counts[:3, :2].tolist() == [[1, 1], [1, 3], [1, 1]]


def test_no_rows_and_ids_that_the_table_lacks(device):
    nothing = torch.empty(0, 5, dtype=torch.int64)
    got = run(device, nothing, int32([]), (None, None), int32([]))
    assert got.scores.shape == (0, 3)
    got = run(device, torch.empty(1, 0).int(), int32([0]), (None, None), int32([0]))
    assert got.counts.tolist() == [[0, 0, 12]]
    assert got.scores.tolist() == [[0.0, 0.0, 0.0]]
    ids, lens = padded([[len(VOCABULARY)], [-1], [1 << 40], [ID[b"soil"]]])
    for spans in ((None, None), (int32([0] * 4), int32([4] * 4))):
        got = run(device, ids, lens, spans, int32([0] * 4), validate=False)
        assert got.decided.tolist() == [False, False, False, True]


def test_hashes_compose():
    assert hash_bytes(b"") == 0
    draw = random.Random(3)
    for _ in range(50):
        u, v = draw.randbytes(draw.randrange(9)), draw.randbytes(draw.randrange(9))
        joined = hash_bytes(u) * power(len(v)) + hash_bytes(v)
        assert (joined - hash_bytes(u + v)) % (1 << 64) == 0


def test_words_that_beat_powers_of_two_are_too_long_to_be_decided():
    signs = "".join(str(bin(i).count("1") % 2) for i in range(1024))
    flipped = signs.translate(str.maketrans("01", "10"))
    assert hash_bytes(signs.encode()) == hash_bytes(flipped.encode())
    assert hash_bytes(signs[:128].encode()) != hash_bytes(flipped[:128].encode())


def test_the_table_knows_a_token_s_pieces():
    table = build_token_table([b"", b"Ab-c", b" x", b"y.\n", b"u v the w z", b"\xff", None, b"\\"])
    names = "head", "tail", "whole words", "boundary", "bad", "unknown", "backslash"
    found = []
    for head, tail, info, begin in table.records[:8].tolist():
        words = table.words[begin : begin + (info >> 32 & 0xFFFF)].tolist()
        found.append(dict(zip(names, (head, tail, words, *flags(info)), strict=True)))
    heads, tails = [b"", b"abc", b"", b"y", b"u"], [b"", b"", b"x", b"", b"z"]
    assert [f["head"] for f in found] == [*map(hash_bytes, heads), 0, 0, 0]
    assert [f["tail"] for f in found] == [*map(hash_bytes, tails), 0, 0, 0]
    assert found[4]["whole words"] == [hash_bytes(b"v"), hash_bytes(b"w")]
    assert [f["boundary"] for f in found] == [0, 0, 1, 1, 1, 0, 0, 0]
    assert [f["bad"] for f in found] == [0, 0, 0, 0, 0, 1, 0, 0]
    assert [f["unknown"] for f in found] == [0, 0, 0, 0, 0, 0, 1, 0]
    assert [f["backslash"] for f in found] == [0, 0, 0, 0, 0, 0, 0, 1]
    assert [info & 0xFFFF for info in table.records[:8, 2].tolist()] == [0, 4, 2, 3, 11, 1, 0, 1]
    with pytest.raises(ValueError, match="token 1 has 65536 bytes"):
        build_token_table([b"", b"x" * 65536])


def flags(info):
    return [info >> bit & 1 for bit in (48, 49, 50, 51)]


GOOD = {
    "token_ids": torch.tensor([[4, 5], [4, 0]]),
    "lens": int32([2, 1]),
    "span_begin": int32([0, 0]),
    "span_end": int32([4, 4]),
    "reference_rows": int32([0, 2]),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_ids": torch.zeros(3).long()}, r"token_ids has shape \(3,\)"),
        ({"token_ids": torch.zeros(2, 2)}, "token_ids is torch.float32"),
        ({"token_ids": torch.zeros(2, 4).long()[:, ::2]}, "token_ids has strides"),
        ({"token_ids": torch.tensor([[4, 5], [99, 0]])}, "token_ids has 99 at 2"),
        ({"lens": torch.tensor([2, 1])}, "lens is torch.int64"),
        ({"lens": int32([2])}, r"lens has shape \(1,\)"),
        ({"lens": int32([2, 3])}, r"lens has 3 at 1: it must lie in \[0, 3\)"),
        ({"span_begin": None}, "only one of span_begin and span_end"),
        ({"span_end": int32([4, 5])}, "0 and 5 at 1: they must rise inside the row's 4 bytes"),
        ({"span_begin": int32([-1, 0])}, "-1 and 4 at 0"),
        ({"span_begin": int32([5, 0])}, "5 and 4 at 0"),
        ({"reference_rows": int32([0, 3])}, r"reference_rows has 3 at 1"),
        ({"reference_rows": None}, "2 rows of token_ids, 1 samples of 3 references"),
        ({"lens": int32([2, 1, 1, 1])[::2]}, "lens has strides"),
        ({"lens": torch.empty(2, dtype=torch.int32, device="meta")}, "lens is on meta"),
        ({"offsets": int32([0, 5, 3, 9])}, "references.offsets falls from 5 to 3"),
        ({"offsets": int32([0, 1, 2, 999])}, "references.offsets runs from 0 to 999"),
        ({"copies": torch.zeros(3)}, r"references.copies has shape \(3,\)"),
        ({"out": poisoned(3, "cpu")}, r"out.counts has shape \(3, 3\)"),
    ],
)
def test_bad_arguments_are_named(change, message, device):
    given = {name: change.get(name, tensor) for name, tensor in GOOD.items()}
    given = {k: v if v is None or v.is_meta else v.to(device) for k, v in given.items()}
    words = {k: v for k, v in change.items() if k in ("offsets", "copies")}
    references = dataclasses.replace(reference_words(REFERENCES), **words).to(device)
    before = run(device, *(GOOD[k] for k in ("token_ids", "lens")), (None, None), int32([0, 2]))
    assert before.decided.all()
    with pytest.raises(ValueError, match=message):
        word_f1(**given, table=TABLE.to(device), references=references, out=change.get("out"))
