"""Every forced output is the object that was asked for, whatever a model samples."""

from __future__ import annotations

import json
import random
from functools import lru_cache
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

from flipfast import ConfigError, FlipConfig, FlipReward
from flipfast.engine.sampling import SamplingParams
from flipfast.engine.sequence import Sequence
from flipfast.metrics.token_bytes import token_bytes
from flipfast.prompts.encoding import TextEncoder
from flipfast.watchers.forced_json import JsonWriter
from tests.metrics.trained_tokenizers import END, tokenizer
from tests.prompts.conftest import make_tokenizer  # noqa: F401  (a fixture)
from tests.scripted import ScriptedInverter, WatchedInverter

KEYS = ["REASONING", "INFERRED INSTRUCTION"]
# What a model writes in a string, and what json.loads then gives; | stands for its end token.
STRINGS = [
    ('abc"', "abc"),
    ('"', ""),
    ("|", ""),
    ("abc|", "abc"),
    ('a, "b": c', "a, "),
    ('say \\"hi\\" {}\\\\"', 'say "hi" {}\\'),
    ('one\ntwo\r\n\tthree\x00"', "one\ntwo\r\n\tthree\x00"),
    ('caf\\u00e9 café 你好 \\ud83d\\ude00 😀"', "café café 你好 😀 😀"),
    ('\\ud83d"', "\ud83d"),
    ('C:\\q \\x41 \\é\\\n"', "C:\\q \\x41 \\é\\\n"),
    ("C:\\|", "C:\\"),
    ('\\usepackage \\u"', "usepackage u"),
    ("\\u|", "u"),
    ("\\u00|", "\x00"),
    ('\\u12g \\u00e"', "\u1200g à"),
    ("\\u00e|", "à"),
]


@lru_cache
def spelling_tokenizer() -> Any:
    """One in Llama 2's manner that has every ASCII letter, beside a token for each byte."""
    state = json.loads(tokenizer("llama2").backend_tokenizer.to_str())
    state["added_tokens"] = []
    names = list(state["model"]["vocab"])
    names += [chr(c) for c in range(33, 127) if chr(c) not in names]
    names += ['"}', '",', '."', '\\"', "\\n", '▁"', "\\u", '":', '\n"']
    state["model"]["vocab"] = {name: i for i, name in enumerate(names)}
    backend = Tokenizer.from_str(json.dumps(state))
    backend.add_special_tokens([AddedToken(END, special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END)


def made_tokenizer(kind: str) -> Any:
    return spelling_tokenizer() if kind == "spelling" else tokenizer(kind)


def decode(made: Any, ids: Any) -> str:
    return str(made.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def json_writer(made: Any, max_new_tokens: int, vocab_size: int | None = None) -> JsonWriter:
    return JsonWriter(
        TextEncoder(made),
        lambda ids: decode(made, ids),
        token_bytes(made, vocab_size),
        frozenset({made.eos_token_id}),
        max_new_tokens,
    )


def run(writer: JsonWriter, max_new_tokens: int, sample: Any) -> Sequence:
    """The output of a model that samples `sample()`, as the engine makes it."""
    sampling = SamplingParams(max_new_tokens=max_new_tokens)
    sequence = Sequence([0], sampling, watcher=writer())
    while sequence.finish_reason is None:
        sequence.accept(sample(), frozenset())  # the watcher takes care of end tokens
    return sequence


def least(made: Any) -> int:
    with pytest.raises(ConfigError, match="max_new_tokens=1 leaves no room") as caught:
        json_writer(made, 1)
    return int(str(caught.value).split()[-3])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["embedded", "gpt2", "llama3", "superwords", "spelling"])
def test_every_output_parses(kind: str) -> None:
    made = made_tokenizer(kind)
    rng = random.Random(5)
    size = len(made) + 3
    table = token_bytes(made, size)
    dangerous = [i for i, data in enumerate(table) if data is None or set(data) & set(b'"\\\n')]
    dangerous += [i for i, data in enumerate(table) if data in (b"u", b"0", b"dead", b"")]
    shortest = least(made)
    writers = {n: json_writer(made, n, size) for n in (*range(shortest, shortest + 9), 60)}
    reasons = []
    for _ in range(1500):
        n, share = rng.choice(list(writers)), rng.choice([0.1, 0.5, 0.9])

        def sample(share: float = share) -> int:
            return rng.choice(dangerous) if rng.random() < share else rng.randrange(size)

        sequence = run(writers[n], n, sample)
        text = decode(made, sequence.output_ids)
        assert list(json.loads(text)) == KEYS, text
        assert len(sequence.output_ids) <= n
        reasons.append(sequence.finish_reason)
    assert min(reasons.count("stop"), reasons.count("length")) > 50


@pytest.mark.parametrize(("written", "expected"), STRINGS)
@pytest.mark.parametrize("whole", [False, True])
def test_what_becomes_of_a_string(written: str, expected: str, whole: bool) -> None:
    made = tokenizer("gpt2")
    parts = [written.replace("|", "")] if whole else list(written.replace("|", ""))
    ids = [i for part in parts for i in made.encode(part, add_special_tokens=False)]
    ids += [made.eos_token_id] * written.endswith("|")
    # What a string's closing token holds besides goes: none of it is in the next string.
    closing = made.encode('"', add_special_tokens=False)[-1]
    for tokens, at in (([*ids, closing], 0), ([closing, *ids], 1)):
        output = run(json_writer(made, 200), 200, iter(tokens).__next__).output_ids
        assert json.loads(decode(made, output))[KEYS[at]] == expected


def test_a_token_keeps_what_stands_before_its_quote() -> None:
    made = spelling_tokenizer()
    said = made.convert_tokens_to_ids(["x", '."', "y", '"}'])
    sampled = iter(said)
    sequence = run(json_writer(made, 90), 90, sampled.__next__)
    assert decode(made, sequence.output_ids) == '{"REASONING": "x.", "INFERRED INSTRUCTION": "y"}'
    assert sequence.finish_reason == "stop"


def test_a_run_of_broken_bytes_takes_no_quote_with_it() -> None:
    made = spelling_tokenizer()
    broken, backslash, letter = made.convert_tokens_to_ids(["<0xFF>", "<0x5C>", "<0x6E>"])
    quote = made.convert_tokens_to_ids('"')
    sampled = iter([broken, backslash, letter, broken, backslash, broken, quote, letter, quote])
    text = decode(made, run(json_writer(made, 90), 90, sampled.__next__).output_ids)
    assert json.loads(text) == {KEYS[0]: "\ufffd\n\ufffd\\\ufffd", KEYS[1]: "n"}


def test_the_reasoning_gets_half_and_the_instruction_the_rest() -> None:
    made = tokenizer("gpt2")
    letter, quote = (made.encode(text, add_special_tokens=False)[-1] for text in ("a", '"'))
    shortest = least(made)
    for n in range(shortest, shortest + 12):
        writer = json_writer(made, n)
        endless = run(writer, n, lambda: letter)
        record = json.loads(decode(made, endless.output_ids))
        room = n - shortest + 2
        assert [len(value) for value in record.values()] == [room // 2, room - room // 2]
        assert (len(endless.output_ids), endless.finish_reason) == (n, "length")
        sampled = iter([quote, *[letter] * room, quote])
        short = run(writer, n, sampled.__next__)
        assert json.loads(decode(made, short.output_ids))[KEYS[1]] == "a" * room
        assert (len(short.output_ids), short.finish_reason) == (n, "stop")


def test_too_little_room_is_an_error_that_says_the_least() -> None:
    made = tokenizer("gpt2")
    shortest = least(made)
    assert json_writer(made, shortest)
    with pytest.raises(ConfigError, match=f"max_new_tokens={shortest - 1} .* {shortest} at least"):
        json_writer(made, shortest - 1)


def test_no_tokenizer_runs_twice_for_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tokenizer("embedded")
    writer = json_writer(made, 80)
    ids = made.encode('It\\is\n\\u12 a "b c"', add_special_tokens=False)
    first, second = iter(ids * 20), iter(ids * 20)
    output = run(writer, 80, first.__next__).output_ids
    monkeypatch.setattr(TextEncoder, "encode_text", None)
    assert run(writer, 80, second.__next__).output_ids == output


def test_a_tokenizer_that_cannot_write_json_is_refused() -> None:
    normalizing = Tokenizer.from_str(tokenizer("gpt2").backend_tokenizer.to_str())
    normalizing.normalizer = normalizers.NFKC()
    kinds = {
        "llama2": tokenizer("llama2"),  # it has braces only as bytes
        "metaspace": tokenizer("metaspace"),  # it has none
        "\uff02": PreTrainedTokenizerFast(tokenizer_object=normalizing, eos_token=END),
    }
    for made in kinds.values():
        with pytest.raises(ConfigError, match="this tokenizer (cannot write|does not keep)"):
            json_writer(made, 100)


def forced(make: Any, answer: str = 'r" Name a river" now', **options: Any) -> FlipReward:
    inverter = WatchedInverter(make(), lambda prompt, _: answer)
    return FlipReward(inverter=inverter, model="scripted", json="forced", **options)


def test_rewards_of_forced_outputs(make_tokenizer: Any) -> None:  # noqa: F811
    for parser in ("robust", "reference"):
        reward = forced(make_tokenizer, parser=parser, max_new_tokens=100)
        batch = reward.score(["Name a river."], ["r"])
        assert (batch.rewards, batch.inferred) == ([1.0], [" Name a river"])
        assert batch.status == ["ok"]
    cut = forced(make_tokenizer, 'r" Name a river' + " now" * 600).score(["Name a river."], ["r"])
    assert cut.status == ["truncated"]
    assert cut.inferred[0].startswith(" Name a river now")


def test_options_that_do_not_go_together(make_tokenizer: Any) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match="free, forced, not 'strict'"):
        FlipConfig(json="strict")
    with pytest.raises(ConfigError, match="thinking=True"):
        FlipConfig(json="forced", thinking=True)
    with pytest.raises(ConfigError, match="a style that asks for JSON"):
        forced(make_tokenizer, style="direct")
    with pytest.raises(ConfigError, match="leaves no room"):
        forced(make_tokenizer, max_new_tokens=5)
    deaf = ScriptedInverter(make_tokenizer(), lambda *_: "")
    with pytest.raises(ConfigError, match="needs backend='native': 'scripted' does not"):
        FlipReward(inverter=deaf, json="forced", style="standalone")
