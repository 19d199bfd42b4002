"""What the C++ tests take from Python is what Python says."""

import pytest

from tests.cpp.make_cases import FOLDER, files


@pytest.mark.parametrize(("name", "content"), files().items())
def test_cases_are_those_of_python(name, content):
    assert (FOLDER / name).read_text("utf-8") == content
