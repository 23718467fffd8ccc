from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planasonix_provider.api.json_bodies import MAX_DEPTH, TooManyValuesError, make_storable, read_json

#: All JSON values: texts with NUL and lone surrogates, and any number.
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4) | st.sampled_from(["__classname__", "__type", "_a"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (rb'"a\u0000b"', "a\ufffdb"),
        (rb'"\ud800"', "\ufffd"),
        (rb'"\udfff\ud800x"', "\ufffd\ufffdx"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
        (rb'"\\u0000 \\ud800"', r"\u0000 \ud800"),
        (rb'"\\\u0000"', "\\\ufffd"),
        (b'"\xff\xed\xa0\x80"', "\ufffd" * 4),
        (rb'{"a\u0000": 1}', {"a\ufffd": 1}),
        (rb'{"__classname__": "a", "\u005f_type": 1, "_\u005Fvar": 2, "_a": {"__x": 1}}', {"_a": {}}),
        (b"[NaN, Infinity, -Infinity, 1e999, -1E+400]", [None] * 5),
        (b"[9223372036854775807, 9223372036854775808]", [2**63 - 1, float(2**63)]),
        (b"[" + b"9" * 5_000 + b"]", [None]),
        (b'[12345678901234567890, "12345678901234567890"]', [1.2345678901234567e19, "1234567890" * 2]),
        (b'{"a": -' + b"9" * 5_000 + b'.5, "b": "' + b"9" * 5_000 + b'"}', {"a": None, "b": "9" * 5_000}),
    ],
)
def test_values_that_cannot_be_stored_are_replaced(body: bytes, value: Any) -> None:
    assert read_json(body, 100) == value


@pytest.mark.parametrize("body", [b"", b"{", b"\x00", b"<html>", b'"\x00"', b"[" * 300 + b"]" * 300])
def test_invalid_json_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="at line 1"):
        read_json(body, 1_000)


def test_values_that_are_nested_too_deep_are_left_out() -> None:
    value: Any = "deep"
    for _ in range(MAX_DEPTH):
        value = [value]
    assert make_storable(value) == value
    assert "deep" not in str(make_storable([value]))


@pytest.mark.heavy
@given(ANYTHING)
def test_every_result_can_be_stored(value: Any) -> None:
    """In PostgreSQL, as UTF-8 and MessagePack, and by Airflow's serialization."""
    for read in (read_json(json.dumps(value).encode(), 1_000), make_storable(value)):
        text = json.dumps(read, allow_nan=False, ensure_ascii=False)
        text.encode()
        assert "\0" not in text
        assert r"\u0000" not in text
        assert '"__' not in text or '"__' in json.dumps(list(_texts(read)))
        assert all(-(2**63) <= number < 2**64 for number in _numbers(read))


def _texts(value: Any) -> Any:
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(item)


def _numbers(value: Any) -> Any:
    if isinstance(value, int):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _numbers(item)


@pytest.mark.parametrize("mark", ["[]", "{}", "1", "[[[[]]]]", '{"a": {"b": []}}', '"a"'])
def test_more_values_than_allowed_are_refused(mark: str) -> None:
    body = f"[{', '.join([mark] * 60)}]".encode()
    with pytest.raises(TooManyValuesError, match="more than 50 values"):
        read_json(body, 50)
    assert len(read_json(body, 1_000)) == 60


@pytest.mark.heavy
def test_values_are_counted_without_a_copy_of_the_body() -> None:
    body = b"[" + b'{"a":"b"},' * 100_000 + b"0]"
    tracemalloc.start()
    try:
        with pytest.raises(TooManyValuesError):
            read_json(body, 150_000)
        assert tracemalloc.get_traced_memory()[1] < len(body)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", ["[{," * 100, '\\"[{,' * 100, r"\\\\" * 7 + "," * 100, '\n,",' * 100])
def test_commas_and_brackets_in_a_text_are_not_counted_as_values(text: str) -> None:
    assert read_json(json.dumps({"message": text}).encode(), 10) == {"message": text}


@pytest.mark.parametrize("body", [b'"' + b"," * 1_000_000, b'"\\' * 500_000, b'["' * 500_000])
def test_an_unterminated_text_is_refused_quickly(body: bytes) -> None:
    # The commas exceed the limit of values, so the parser searches for texts.
    with pytest.raises(ValueError, match=r"values|line 1"):
        read_json(b"," * 20 + body, 10)
