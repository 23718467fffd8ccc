"""Reads JSON bodies, and replaces in them what Airflow, PostgreSQL or UTF-8 cannot store.

This is the only place that does so. PostgreSQL refuses NUL, ``NaN`` and ``Infinity`` in JSON, UTF-8 has no lone
surrogates, MessagePack has no integers of more than 64 bits, and Airflow takes a dict with a key like
``__classname__`` for an object that it has to create.
"""

from __future__ import annotations

import math
import re
from itertools import islice
from typing import Any

from pydantic_core import from_json

#: Airflow's serialization uses keys that begin with this: ``__classname__``, ``__data__``, ``__type``, ``__var``.
RESERVED_PREFIX = "__"
#: How many characters of a text are kept: texts go to logs, XComs and Airflow's database.
MAX_TEXT = 2_000
#: How many levels of lists and objects are kept.
MAX_DEPTH = 32

_REPLACEMENT = "\ufffd"
_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")
# An escaped pair of surrogates is one character. The last alternative skips every other escape, "\\" among them.
_ESCAPE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u(0000|[dD][89a-fA-F]..)|\\.", re.S)
# A reserved key, a number that is not finite, or an integer of more than 64 bits: each perhaps within a text.
_SUSPECT = re.compile(r'"__|\\u005[fF]|NaN|Infinity|[0-9]{19}|[0-9][eE]\+?[0-9]{3}')
# A text, or the mark of a value outside of texts. A text without an end reaches to the end of the body; otherwise each
# quote in it would be tried as a start.
_TEXT_OR_MARK = re.compile(rb'"(?:[^"\\]|\\.)*+"?|([,\[{])', re.S)
# Python reads no integer of more than 4,300 digits.
_HUGE = re.compile(r"([:,\[]\s*)-?[0-9]{4000,}(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class TooManyValuesError(ValueError):
    """A JSON body has so many values that reading them would take too much memory."""


def read_json(content: bytes, max_values: int) -> Any:
    """Read a JSON body and return its value, in JSON types that can be stored. Bytes that are not UTF-8 are replaced.

    The values are counted before anything is created for them: a value of three bytes takes a hundred times as many
    once it is read, and packed bodies have millions of them.

    :raises TooManyValuesError: if the body has more than ``max_values``.
    :raises ValueError: if the body is not JSON.
    """
    # Texts may have commas and brackets, too, so they are left out if the first count is too high.
    marks = (found for found in _TEXT_OR_MARK.finditer(content) if found[1])
    count = sum(content.count(mark) for mark in (b",", b"[", b"{"))
    if count > max_values and any(islice(marks, max_values, None)):
        raise TooManyValuesError(f"more than {max_values:,} values")
    text = content.decode(errors="replace")
    if "\\u" in text:
        text = _ESCAPE.sub(lambda found: "\\ufffd" if found[1] else found[0], text)
    try:
        value = from_json(text)
    except ValueError:
        if not _HUGE.search(text):
            raise
        value = from_json(_HUGE.sub(r"\1null", text))
    return make_storable(value) if _SUSPECT.search(text) else value


def make_storable(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Return a value of JSON types without reserved keys, and with replacements for what cannot be stored.

    NUL and lone surrogates become U+FFFD, numbers that are not finite become ``None``, integers of more than 64 bits
    become floats, and lists and objects below ``depth`` levels become ``None``.
    """
    if isinstance(value, str):
        return _NOT_STORABLE.sub(_REPLACEMENT, value)
    if isinstance(value, dict):
        pairs = ((make_storable(name), item) for name, item in value.items() if not name.startswith(RESERVED_PREFIX))
        return {name: make_storable(item, depth - 1) for name, item in pairs} if depth else None
    if isinstance(value, list):
        return [make_storable(item, depth - 1) for item in value] if depth else None
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        value = float(value) if abs(value) < 2**1000 else math.inf
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shorten(text: str, limit: int = MAX_TEXT) -> str:
    """Return a text, or its beginning and an ellipsis if it is longer than a limit."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
