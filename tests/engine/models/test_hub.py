"""Models by hub name: what is downloaded when, and what the errors say; no network is used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import transformers
from huggingface_hub import errors

from flipfast.engine.models import hub
from flipfast.engine.models.checkpoint import read_model
from flipfast.engine.models.errors import UnsupportedModelError
from flipfast.errors import ModelLoadError


class FakeHub:
    """Copies files from one folder to another, as a download would."""

    def __init__(self, remote: Path, cache: Path) -> None:
        self.remote, self.cache = remote, cache
        self.calls: list[tuple[str, str | None, list[str]]] = []

    def snapshot_download(
        self, name: str, *, revision: str | None, allow_patterns: list[str]
    ) -> str:
        self.calls.append((name, revision, allow_patterns))
        self.cache.mkdir(exist_ok=True)
        for pattern in allow_patterns:
            for path in self.remote.glob(pattern):
                shutil.copy(path, self.cache)
        return str(self.cache)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama_folder: Path) -> FakeHub:
    remote = tmp_path / "remote"
    model = transformers.AutoModelForCausalLM.from_pretrained(llama_folder)
    model.save_pretrained(remote, max_shard_size="100KB")
    (remote / "consolidated.safetensors").write_bytes(b"not wanted")
    fake = FakeHub(remote, tmp_path / "cache")
    monkeypatch.setattr(hub, "snapshot_download", fake.snapshot_download)
    return fake


def test_the_shards_of_the_index_are_downloaded(fake: FakeHub) -> None:
    _, checkpoint = read_model("someone/llama", "v2")
    assert {path.parent for path in checkpoint.files} == {fake.cache}
    assert len(list(checkpoint.tensors())) == 30
    assert not (fake.cache / "consolidated.safetensors").exists()
    assert {call[:2] for call in fake.calls} == {("someone/llama", "v2")}


def test_an_unknown_family_costs_one_small_file(fake: FakeHub) -> None:
    path = fake.remote / "config.json"
    content = {**json.loads(path.read_text("utf-8")), "architectures": ["GPT2LMHeadModel"]}
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(UnsupportedModelError, match="GPT2LMHeadModel"):
        read_model("someone/gpt2")
    assert [call[2] for call in fake.calls] == [["config.json"]]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (errors.GatedRepoError, "'a/b' is gated"),
        (errors.RepositoryNotFoundError, "'a/b' is neither a local folder nor a model"),
        (errors.RevisionNotFoundError, "'a/b' has no revision 'r'"),
        (errors.HFValidationError, "neither"),
        (errors.LocalEntryNotFoundError, "cannot be reached"),
        (OSError, "could not download 'a/b': OSError: why"),
    ],
)
def test_errors(kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> str:
        raise kind.__new__(kind, "why")

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(ModelLoadError, match=message):
        read_model("a/b", "r")
