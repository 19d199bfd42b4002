"""Streams: when rows are due, what counts as latency; prescribed outputs; long prompts' check."""

import asyncio
from statistics import mean

import pytest

pytest.importorskip("triton")
pytest.importorskip("psutil")

from bench.bench_serving import arrival_times, send
from bench.bench_workloads import CHUNK, N_WORDS, check_chunks
from bench.models import EMBEDDED, random_model
from bench.scripted import Script, ScriptedModel, output_lengths, random_outputs, text_script
from bench.shapes import SHAPES, Shape
from bench.sizes import OUTPUT_TOKENS, TEXT_SHARES

ROWS = [("a", "x"), ("b", "y"), ("c", "z")]
REWARDS = [0.0, 0.5, None]


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """Jumps to the next timer where nothing else is left to do."""

    now = 100.0

    def time(self):
        return self.now

    def _run_once(self):
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0]._when)
        super()._run_once()


def on_fake_time(coroutine):
    loop = FakeTimeLoop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()


class OneAtATime:
    """A scorer that takes two seconds a row, one row after the other."""

    def __init__(self, rewards):
        self.rewards = dict(zip(ROWS, rewards, strict=True))
        self.lock = asyncio.Lock()
        self.n_asked = 0

    async def score_row(self, *row):
        self.n_asked += 1
        async with self.lock:
            await asyncio.sleep(2.0)
        return {"reward": self.rewards[row]}


def test_latency_counts_from_when_a_row_was_due():
    scorer = OneAtATime(REWARDS)
    latencies = on_fake_time(send(scorer.score_row, ROWS, [1.0, 1.5, 10.0], REWARDS))
    assert latencies == pytest.approx([2.0, 3.5, 2.0])  # the second one waits for the first


def test_a_row_that_is_sent_late_has_waited():
    async def blocked(*row):
        asyncio.get_running_loop().now += 5.0  # nothing else can run meanwhile
        return {"reward": None}

    latencies = on_fake_time(send(blocked, ROWS, [1.0, 2.0, 3.0], [None] * 3))
    assert latencies == pytest.approx([5.0, 9.0, 13.0])


def test_a_wrong_reward_stops_a_stream():
    scorer = OneAtATime([0.0, 0.25, None])
    with pytest.raises(AssertionError, match=r"0\.25"):
        on_fake_time(send(scorer.score_row, ROWS, [1.0, 2.0, 100.0], REWARDS))
    assert scorer.n_asked == 2


def test_arrivals_have_the_rate_asked_for():
    due = arrival_times(4000, 20.0)
    assert due == arrival_times(4000, 20.0) != arrival_times(4000, 20.0, seed=1)
    gaps = [b - a for a, b in zip([0.0, *due], due, strict=False)]
    assert min(gaps) > 0
    assert mean(gaps) == pytest.approx(1 / 20, rel=0.05)
    assert mean(gap * gap for gap in gaps) == pytest.approx(2 / 20**2, rel=0.1)  # exponential


@pytest.fixture(scope="module")
def model():
    loaded = ScriptedModel(EMBEDDED, device="cpu", memory=2**27, max_seqs=3)
    yield loaded
    loaded.close()


def test_outputs_of_several_lengths(model):
    lengths = [1, 7, 3, 12]
    prompts = [[*range(1, 11), *[7 + i] * 30] for i in range(4)]
    script = Script(prompts, random_outputs(lengths, vocab=model.vocab_size, seed=3))
    assert list(map(len, script.outputs)) == lengths
    run = model.write(script)
    assert (run.passes, run.drafted) == (sum(lengths) / 4, 0)
    drafted = model.write(script, acceptance=1.0, length=4)
    assert drafted.passes == (1 + 2 + 1 + 3) / 4
    assert drafted.accepted == sum(lengths) - 7
    assert drafted.peak_pages >= run.peak_pages > 0


def test_a_script_of_texts():
    script = text_script(["Some words.", "Some more words."], vocab=N_WORDS, n_out=5)
    first, second = script.prompts
    assert first[:4] == second[:4]
    assert list(map(len, script.outputs)) == [5, 5]
    lengths = sorted(output_lengths(2000))
    for share, n_tokens in list(zip(TEXT_SHARES, OUTPUT_TOKENS, strict=True))[1:-2]:
        assert lengths[int(share * len(lengths))] == pytest.approx(n_tokens, rel=0.2)


@pytest.fixture
def small(monkeypatch):
    config = {**SHAPES["tiny-32k"].config, "hidden_size": 64, "num_hidden_layers": 1}
    monkeypatch.setitem(SHAPES, "small", Shape("qwen3", config))
    return random_model("small")


def test_chunks_are_compared_with_one_piece(small, monkeypatch):
    text, options = "many words " * CHUNK, {"device": "cpu", "memory": 2**28}
    check_chunks(small, text, options)
    answers = iter([[-1.0, -2.0], [-1.0, -2.0 - 1e-15]])
    monkeypatch.setattr(ScriptedModel, "log_probs", lambda *_: next(answers))
    with pytest.raises(AssertionError):
        check_chunks(small, text, options)


def test_a_random_model_is_the_same_every_time(small):
    first, second = (dict(small[1].tensors()) for _ in range(2))
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)
