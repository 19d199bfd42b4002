"""What the tests of all commands share."""

import sys

import pytest


@pytest.fixture(scope="module", autouse=True)
def _no_pyplot():
    """A command must not look for a display: it finds no pyplot, whoever has imported it before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib.pyplot", None)
        yield
