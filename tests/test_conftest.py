"""What the suite does for its own tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_half_a_surrogate_pair_reaches_the_report_of_shared_tests(tmp_path):
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_one.py").write_text(
        "def test_one():\n    print('before')\n    raise ValueError('half \\ud800 a pair')\n"
    )
    # The tests' own settings, as whether they are shared, are none of these.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "1", "-p", "no:cacheprovider", str(tmp_path)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 failed" in found.stdout, found.stdout + found.stderr
    assert r"ValueError: half \ud800 a pair" in found.stdout
