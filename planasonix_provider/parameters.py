"""Checks what a DAG's author wrote: when the DAG is parsed where it can be known then, else before any request.

Light on purpose: a DAG file that only names an operator imports this, and nothing of the API.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

#: Longer than anybody waits, and short enough to be added to a date.
LONGEST_SECONDS = 10 * 365 * 86_400

#: Takes a parameter's name and value; gives the value in its final form, or raises a ``ValueError`` that says it all.
Check = Callable[[str, Any], Any]

PRIORITIES = ("low", "normal", "high")


def is_open(value: Any) -> bool:
    """Say whether a value is decided only when the task runs.

    :param value: a parameter, as the DAG has it.
    :return: whether there is a template or another task's output in it.
    """
    if isinstance(value, str):
        return any(mark in value for mark in ("{{", "{%", "{#"))
    if isinstance(value, Mapping):
        return any(is_open(item) for pair in value.items() for item in pair)
    if isinstance(value, (list, tuple, set)):
        return any(is_open(item) for item in value)
    # What Airflow resolves at run time (XComArg and its kin) has this method.
    return hasattr(value, "resolve")


def optional(check: Check) -> Check:
    """Let ``None`` pass a check.

    :param check: the check for every other value.
    :return: the check that lets ``None`` pass.
    """
    return lambda name, value: None if value is None else check(name, value)


def text(name: str, value: Any) -> str:
    """Check a text that must say something.

    :param name: the parameter's name, for the message.
    :param value: what was given.
    :return: the text.
    :raises ValueError: if it is none.
    """
    if not isinstance(value, str) or not value.strip():
        raise _refusal(name, value, "a text that is not empty")
    return value


def seconds(name: str, value: Any) -> float:
    """Check a stretch of time.

    :param name: the parameter's name, for the message.
    :param value: what was given: seconds as a number or, from a template, as text; or a ``timedelta``.
    :return: the seconds.
    :raises ValueError: if it is none, not above 0, or more than ten years.
    """
    try:
        number = value.total_seconds() if isinstance(value, timedelta) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not 0 < number <= LONGEST_SECONDS:
        raise _refusal(name, value, "a number of seconds above 0 and up to ten years, or a timedelta")
    return number


def priority(name: str, value: Any) -> str:
    """Check a priority.

    :param name: the parameter's name, for the message.
    :param value: what was given.
    :return: the priority.
    :raises ValueError: if the API knows none of that name.
    """
    if value not in PRIORITIES:
        raise _refusal(name, value, ", ".join(PRIORITIES))
    return str(value)


def metadata(name: str, value: Any) -> dict[str, Any]:
    """Check what is to be sent as a JSON object.

    :param name: the parameter's name, for the message.
    :param value: what was given.
    :return: the same, as JSON types.
    :raises ValueError: if JSON cannot hold it.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _refusal(name, value, "a mapping whose keys are texts")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as reason:
        raise _refusal(name, value, f"what JSON can hold ({reason})") from None
    return plain


def _refusal(name: str, value: Any, allowed: str) -> ValueError:
    shown = repr(value)
    return ValueError(f"{name}: got {shown if len(shown) <= 200 else shown[:200] + '…'}, allowed is {allowed}.")
