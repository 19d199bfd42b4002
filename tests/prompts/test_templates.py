"""The wording's shape, and the loader for the authors' files."""

from pathlib import Path

import pytest

from flipfast.errors import ConfigError
from flipfast.prompts.authors import load_authors_template
from flipfast.prompts.templates import STYLES, TARGETS, get_template


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("target", TARGETS)
def test_texts_come_before_the_output_format(style: str, target: str) -> None:
    template = get_template(style, target)
    assert template.user_with_context is not None
    filled = template.user_with_context.format(response="RESPONSE", context="CONTEXT")
    assert filled.index("CONTEXT") < filled.index("RESPONSE")
    assert template.wants_json == (style != "direct")
    if template.wants_json:
        shape = '{"REASONING": "...", "INFERRED INSTRUCTION": "..."}'
        assert filled.index("RESPONSE") < filled.rindex(shape)


def test_the_target_is_named() -> None:
    assert "system prompt" in get_template("direct", "system").user
    assert "system prompt" not in get_template("direct").user


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="'rl'.*standalone"):
        get_template("rl")
    with pytest.raises(ConfigError, match="'user'.*system"):
        get_template("direct", "user")


def write(folder: Path, **files: bytes) -> Path:
    for name, content in files.items():
        (folder / f"{name}.prompt").write_bytes(content)
    return folder


def test_the_authors_files_are_read_byte_for_byte(tmp_path: Path) -> None:
    system = "Task\u2011one \u2019 {{x}}\r\n".encode()
    write(tmp_path, FLIP_SYSTEM=system, FLIP_USER=b"[Response]\n{response}\n{{x}}")
    template = load_authors_template(tmp_path)
    assert template.system == "Task\u2011one \u2019 {{x}}\r\n"
    assert template.user.format(response="{r}") == "[Response]\n{r}\n{x}"
    assert template.user_with_context is None
    assert template.wants_json


def test_the_conversation_file_keeps_its_heading_without_context(tmp_path: Path) -> None:
    write(tmp_path, FLIP_RL=b"[History]\n{context}\n\n[AI Answer]\n{output}\n{{}}")
    template = load_authors_template(tmp_path, "conversation")
    assert template.user.format(response="r") == "[History]\n\n\n[AI Answer]\nr\n{}"
    assert template.user_with_context is not None
    assert template.user_with_context.format(response="r", context="c").startswith("[History]\nc\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no field", "fields \\[\\]"),
        (b"{response} {response}", "expected one"),
        (b"{response} {name}", "'name'"),
        (b"{response", "not a text for str.format"),
        (b"{response} \xff", "not UTF-8"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    write(tmp_path, FLIP_SYSTEM=b"s", FLIP_USER=content)
    with pytest.raises(ConfigError, match=message):
        load_authors_template(tmp_path)


def test_a_missing_file_or_style_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"FLIP_USER\.prompt: No such file"):
        load_authors_template(tmp_path)
    with pytest.raises(ConfigError, match="'direct'"):
        load_authors_template(tmp_path, "direct")
