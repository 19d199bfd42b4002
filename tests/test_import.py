"""`import flipfast` is light, and its public names load on first use."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import flipfast

HEAVY = ("torch", "triton", "transformers", "tokenizers", "safetensors", "huggingface_hub")


def heavy_after(statement: str) -> list[str]:
    """Which heavy packages a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_the_probe_sees_a_heavy_import():
    assert heavy_after("import safetensors") == ["safetensors"]


@pytest.mark.parametrize(
    "statement",
    [
        "import flipfast",
        "import flipfast; flipfast.__version__; dir(flipfast)",
        "from flipfast import FlipConfig, overlap_f1, extract_instruction; FlipConfig()",
        "from flipfast import overlap_f1; overlap_f1(['a b'], ['b'])",
        "from flipfast import InputError, FlipfastError",
        "import flipfast_kernels",
    ],
)
def test_import_is_light(statement):
    assert heavy_after(statement) == []


def test_import_leaves_numpy_alone():
    code = "import sys, flipfast; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_loads():
    for name in flipfast.__all__:
        assert getattr(flipfast, name) is not None
        assert name in dir(flipfast)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'FlipRewards'"):
        _ = flipfast.FlipRewards


def test_the_version_is_that_of_the_package():
    assert flipfast.__version__ == version("flipfast")


@pytest.mark.slow
def test_the_engine_does_without_gguf():
    """Which only GGUF files need."""
    code = "import sys; sys.modules['gguf'] = None; import flipfast.backends.native"
    subprocess.run([sys.executable, "-c", code], check=True)
