"""GGUF files for comparisons, and what says that two engines agree on one."""

from pathlib import Path

import numpy as np
import pytest
import transformers
from gguf import GGUFReader

from bench.bench_gguf import Case
from bench.gguf_agreement import checked_agreement, spearman
from bench.gguf_files import requantise, write_random
from bench.peers.process import Run
from bench.scripted import Script, ScriptedModel
from bench.shapes import SHAPES
from flipfast.engine.models.gguf.reader import open_gguf
from flipfast.engine.ops.blocks import widened
from tests.engine.models.gguf_files import write_gguf
from tests.engine.toy_models import SMALL

TOKENS = ["river", "city", "town"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights, its layers in Q4_1 and its embedding in Q8_0."""
    path = tmp_path_factory.mktemp("gguf") / "source.gguf"
    config = transformers.Qwen3Config(**{**SMALL, "tie_word_embeddings": True})
    model = transformers.AutoModelForCausalLM.from_config(config)
    own = {"tokenizer.ggml.tokens": TOKENS, "general.file_type": 3, "general.name": "toy"}
    write_gguf(path, model, "Q4_1", kinds={"token_embd": "Q8_0"}, **own)
    return path


def test_layers_alone_get_another_type(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.gguf"
    requantise(source, target, "Q8_0")
    old, new = open_gguf(source), open_gguf(target)
    fields = {key: value for key, value in old.fields.items() if not key.startswith("GGUF.")}
    assert fields.pop("general.file_type") == 3  # which would be wrong
    assert fields == {key: v for key, v in new.fields.items() if not key.startswith("GGUF.")}
    assert new.fields["tokenizer.ggml.tokens"] == TOKENS
    for before, after in zip(old.tensors, new.tensors, strict=True):
        assert (before.name, before.shape) == (after.name, after.shape)
        assert after.kind == ("Q8_0" if before.kind == "Q4_1" else before.kind)
        numbers, others = widened(before.read()).numpy(), widened(after.read()).numpy()
        np.testing.assert_allclose(others, numbers, atol=np.abs(numbers).max() / 127)
        if before.kind == after.kind:
            assert (numbers == others).all()


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0"])
def test_random_blocks_are_a_model_that_runs(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "random.gguf"
    write_random(path, "tiny-32k", kind)
    stored = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    assert stored["token_embd.weight"].tensor_type.name == "Q8_0"
    assert stored["blk.0.ffn_down.weight"].tensor_type.name == kind
    deviations = [widened(t.read()).std() for t in open_gguf(path).tensors if t.kind == kind]
    assert deviations == pytest.approx([0.02] * len(deviations), rel=0.05)
    model = ScriptedModel(path, device="cpu", memory=2**26, max_seqs=2)
    try:
        assert model.vocab_size == SHAPES["tiny-32k"].config["vocab_size"]
        model.write(Script([[1, 2, 3], [1, 2, 4]], [[5, 6], [7, 8]]))
        assert np.isfinite(model.log_probs([1, 2, 3], [4, 5])).all()
    finally:
        model.close()


def test_like_outputs_agree() -> None:
    ours = [[i, 1] for i in range(40)]
    theirs = [*ours[:20], *([i, 2] for i in range(20, 39)), [0, 2]]  # parted, and a wrong first
    found = checked_agreement(ours, theirs, ours, lambda rows: [float(i) for i in range(40)])
    assert found == {
        "ours_theirs_first_tokens": 39 / 40,
        "ours_theirs_spearman": 1.0,
        "ours_floats_first_tokens": 1.0,
        "ours_floats_spearman": 1.0,
        "theirs_floats_first_tokens": 39 / 40,
        "theirs_floats_spearman": 1.0,
        "as_alike_as_wanted": 1.0,
    }


def test_other_outputs_are_told() -> None:
    ours = [[i] for i in range(40)]
    other = [[41]] * 3 + ours[3:]
    assert not checked_agreement(ours, other, ours, lambda _: [0.0] * 40)["as_alike_as_wanted"]
    theirs = [[i, 1] for i in range(40)]
    found = checked_agreement(
        ours, theirs, ours, lambda rows: [float(i if len(rows[0]) == 1 else -i) for i in range(40)]
    )
    assert found["ours_theirs_spearman"] == pytest.approx(-1)
    assert not found["as_alike_as_wanted"]


def test_ours_must_be_as_close_to_floats_as_theirs() -> None:
    floats = [[i] for i in range(40)]
    ours = [[42]] * 7 + floats[7:]
    checked_agreement(ours, [[41]] * 4 + floats[4:], floats, lambda _: [0.0] * 40)
    with pytest.raises(AssertionError, match=r"82\.5% of our outputs.*100\.0% of theirs"):
        checked_agreement(ours, floats, floats, lambda _: [0.0] * 40)
    with pytest.raises(AssertionError, match="39 outputs for 40 prompts"):
        checked_agreement(floats, floats[1:], floats, lambda _: [0.0] * 40)


def test_rank_correlation() -> None:
    assert spearman([0.1, 0.5, 0.9], [0.0, 0.2, 0.3]) == pytest.approx(1)
    assert spearman([0.1, 0.5, 0.9], [0.9, 0.5, 0.1]) == pytest.approx(-1)
    assert spearman([0.0, 0.0], [0.0, 0.0]) == 1.0
    assert spearman([0.0, 0.0], [0.0, 0.1]) == 0.0


class Engine:
    """Answers with the prompt, in as many seconds as its first token says."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def run(self, prompts: list[list[int]], n_new: int, *, keep: bool, drafts: object) -> Run:
        self.calls.append((prompts, keep, drafts))
        return Run(prompts, float(prompts[0][0]), 1, 1)


def test_rows_alone_stand_behind_others_and_keep_their_own_drafts() -> None:
    engine = Engine()
    hints = {"drafts": [([10],), ([11],), ([12],)]}
    case = Case("x", {"ours": (engine, hints)}, [[7], [8], [9]], 4)  # type: ignore[dict-item]
    run = case.run_alone("ours", [2, 0], [1])
    assert engine.calls == [
        ([[8]], False, [([11],)]),
        ([[9]], True, [([12],)]),
        ([[7]], True, [([10],)]),
    ]
    assert (run.outputs, run.seconds, run.n_tokens) == ([[9], [7]], 16.0, 2)  # 2 times 8


def test_rewards_are_those_of_decoded_outputs() -> None:
    case = Case("x", {}, [[1], [1]], 4, ["name one river", "bake bread"], lambda o: TOKENS[o[0]])
    assert case.rewards_of([[0], [1]]) == pytest.approx([0.5, 0.0])
