"""What messages say of a wrong value."""

import pytest

from flipfast import InputError
from flipfast.checks import as_string, as_string_or_none, brief, field_found, named


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [None, True, 3, 1.5, "text", "", [], [1, 2], {}, {"a": [None]}])
def test_a_short_value_is_shown_as_it_is(value):
    assert brief(value) == repr(value)


@pytest.mark.parametrize(
    ("value", "beginning"),
    [
        ("x" * 10_000, "'xxx"),
        (["x" * 90] * 90, "['xxx"),
        ({f"key {i}": i for i in range(1000)}, "{'key"),
        (list(range(1000)), "[0, 1, 2, 3, 4, 5, 6"),
        (nested(100_000), "[[["),  # repr() fails for it
        (nested, "<function"),
    ],
)
def test_any_other_is_shortened(value, beginning):
    shown = brief(value)
    assert shown.startswith(beginning)
    assert len(shown) <= 100


def test_a_field_that_is_there_and_one_that_is_not():
    assert field_found({"role": 3}, "role") == "role is 3"
    assert field_found({"role": None}, "role") == "role is None"
    assert field_found({"b": 1, "a": 2}, "role") == "no role among the fields ['a', 'b']"


def test_an_error_is_named_by_the_fields_around_it():
    expected = "^messages: message 0: role must be a string, got 3$"
    with pytest.raises(InputError, match=expected), named("messages"), named("message 0"):
        as_string(3, "role")


@pytest.mark.parametrize("value", [True, 3, 1.5, [], ["a"], {}, b"bytes"])
@pytest.mark.parametrize(("check", "kind"), [(as_string, ""), (as_string_or_none, " or None")])
def test_no_string(check, kind, value):
    with pytest.raises(InputError) as caught:
        check(value, "it")
    assert str(caught.value) == f"it must be a string{kind}, got {value!r}"


def test_a_string_or_none():
    assert as_string("", "it") == as_string_or_none("", "it") == ""
    assert as_string_or_none(None, "it") is None
    with pytest.raises(InputError, match="got None"):
        as_string(None, "it")
