"""Finding and loading a backend by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flipfast import backends
from flipfast.backends import SamplingParams, available_backends, load_inverter
from flipfast.errors import ConfigError, MissingDependencyError


def test_backends_are_the_public_modules() -> None:
    names = available_backends()
    assert "transformers" in names
    assert not [name for name in names if name == "base" or name.startswith("_")]


def test_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'warp'.*transformers"):
        load_inverter("warp", "model")


def test_a_file_is_all_a_backend_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "echo.py").write_text("def load(model, **options):\n    return model, options\n")
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(tmp_path)])
    assert "echo" in available_backends()
    assert load_inverter("echo", "model", device="cpu") == ("model", {"device": "cpu"})
    monkeypatch.delitem(sys.modules, "flipfast.backends.echo")


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needy.py").write_text("import a_package_nobody_has\n")
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(tmp_path)])
    with pytest.raises(MissingDependencyError, match=r"needy.*a_package_nobody_has"):
        load_inverter("needy", "model")


def test_import_is_light() -> None:
    code = (
        "import sys, flipfast.backends as b; b.available_backends(); "
        "print([m for m in ('torch', 'transformers', 'tokenizers') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 0},
        {"max_new_tokens": 8, "temperature": -0.1},
        {"max_new_tokens": 8, "temperature": float("nan")},
        {"max_new_tokens": 8, "top_p": 0.0},
        {"max_new_tokens": 8, "top_p": 1.5},
        {"max_new_tokens": 8, "top_k": -1},
    ],
)
def test_sampling_params_out_of_range(options: dict[str, float]) -> None:
    name, value = list(options.items())[-1]
    with pytest.raises(ConfigError, match=f"{name}.*{value}"):
        SamplingParams(**options)  # type: ignore[arg-type]
