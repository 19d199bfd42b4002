"""Groups of workloads: how many, how long, where they come from."""

import gzip
import json

import pytest
from tokenizers import Tokenizer

from bench.models import EMBEDDED
from bench.sizes import FULL, QUICK, RESPONSE_WORDS, TEXT_SHARES, Workload
from bench.workloads import columns, made_groups, read_groups, take

ROWS = [
    {"instruction": "a", "response": "1"},
    {"instruction": "a", "response": "2"},
    {"instruction": "b", "responses": ["3", "4", "5"]},
]


@pytest.mark.parametrize("name", ["groups.jsonl", "groups.jsonl.gz"])
def test_rows_of_one_instruction_are_a_group(tmp_path, name):
    path, text = tmp_path / name, "\n".join(map(json.dumps, ROWS)).encode()
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert read_groups(path) == [("a", ["1", "2"]), ("b", ["3", "4", "5"])]


def test_a_broken_row_is_named(tmp_path):
    path = tmp_path / "groups.jsonl"
    path.write_text('{"instruction": "a", "response": "1"}\n{"instruction": 2}\n')
    with pytest.raises(ValueError, match="line 2: instruction must be a string, got 2"):
        read_groups(path)


def test_a_short_source_comes_again_with_other_texts():
    source = [("a", ["1", "2", "3"]), ("b", ["4"])]
    found = take(Workload(n_groups=3, n_responses=2), source, n_more=1)
    assert found == [
        ("a", ["1", "2"]),
        ("b", ["4"]),
        ("2. a", ["2. 1", "2. 2"]),
        ("2. b", ["2. 4"]),
    ]
    assert columns(found[:2]) == (["a", "a", "b"], ["1", "2", "4"])


def test_made_texts_have_the_lengths_of_real_ones():
    groups = made_groups(200, 8)
    assert groups == made_groups(200, 8) != made_groups(200, 8, seed=1)
    lengths = sorted(len(text.split()) for text in columns(groups)[1])
    for share, n_words in list(zip(TEXT_SHARES, RESPONSE_WORDS, strict=True))[1:6]:
        assert lengths[int(share * len(lengths))] == pytest.approx(n_words, rel=0.1)


@pytest.mark.parametrize("source", [None, [("a", ["few words", "many more words " * 9000])]])
def test_long_texts_have_as_many_tokens_as_asked_for(source):
    tokenizer = Tokenizer.from_file(str(EMBEDDED / "tokenizer.json"))
    groups = take(Workload(2, 2, response_tokens=(300, 500)), source)
    lengths = [len(tokenizer.encode(text).ids) for text in columns(groups)[1]]
    wanted = [300, 500] * 2
    for found, expected in zip(lengths, wanted, strict=False):
        assert abs(found - expected) <= 1  # a cut may tear a character's bytes apart


def test_quick_has_the_same_workloads():
    assert FULL.workloads.keys() == QUICK.workloads.keys()
