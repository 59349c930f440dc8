"""Strict JSON, apart from any route."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import ApiError
from serving.json_body import MAX_DEPTH, parse_json

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)  # a shared machine's timings say nothing
@given(values, st.booleans())
def test_what_json_says_comes_back_and_whole_numbers_are_integers(value, ascii_only):
    def whole(one: object) -> object:
        if isinstance(one, float) and one.is_integer() and abs(one) <= 2**53:
            return int(one)
        if isinstance(one, list):
            return [whole(part) for part in one]
        return {key: whole(part) for key, part in one.items()} if isinstance(one, dict) else one

    parsed = parse_json(json.dumps(value, ensure_ascii=ascii_only).encode())
    assert parsed == whole(value)
    assert repr(parsed) == repr(whole(value))  # 1 and 1.0 and True are equal and not the same


@pytest.mark.parametrize(
    ("body", "code", "match"),
    [
        (b"", "invalid_json", "Expecting value"),
        (b"{", "invalid_json", "Expecting property name"),
        (b"{} {}", "invalid_json", "Extra data"),
        (b"\xff\xfe{}", "invalid_json", "UTF-8, got another byte at offset 0"),
        (b"\xef\xbb\xbf{}", "invalid_json", "expected JSON"),  # a byte order mark
        (b'{"a": NaN}', "invalid_json", "NaN is no JSON number"),
        (b"[Infinity]", "invalid_json", "Infinity is no JSON number"),
        (b"-Infinity", "invalid_json", "no JSON number"),
        (b'{"a": 1, "a": 1}', "invalid_json", "'a' comes twice"),
        (b'[{"b": {"c": 1, "d": 2, "c": 3}}]', "invalid_json", "'c' comes twice"),
        (b'"\\ud800"', "invalid_json", "lone surrogate"),
        (b'{"\\udfff": 1}', "invalid_json", "lone surrogate"),
        (b"[" + b"9" * 5000 + b"]", "invalid_json", "expected JSON"),
        (b"'single'", "invalid_json", "Expecting value"),
        (b'"a\nb"', "invalid_json", "control character"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "json_too_deep", "at most 48 deep"),
        (b"[" * 100_000 + b"]" * 100_000, "json_too_deep", "at most 48 deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "json_too_deep", "at most 48 deep"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_refused(body, code, match):
    with pytest.raises(ApiError, match=match) as error:
        parse_json(body)
    assert error.value.kind.code == code


def test_the_deepest_that_is_read():
    value: object = parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    for _ in range(MAX_DEPTH - 1):
        assert isinstance(value, list)
        (value,) = value
    assert value == []


def test_a_surrogate_pair_is_one_character():
    assert parse_json(b'"\\ud83d\\ude00"') == "😀"
