"""Checks what a DAG's author wrote: when the DAG is parsed where it can be known then, else before any request.

Light on purpose: a DAG file that only names an operator imports this, and nothing of the API.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

#: Longer than anybody waits, and short enough to be added to a date.
MAX_SECONDS = 10 * 365 * 86_400

#: The shortest interval between two polls, in seconds: with less, a few tasks use up the rate limit of all.
MIN_POLL_SECONDS = 0.5

#: So far from the first and the last ``datetime`` that nothing that is reckoned with them leads beyond.
YEARS = (1000, 9000)

#: What would make another path of an id, for the API or for what stands before it.
_FORBIDDEN_IN_ID = frozenset(" /\\?#%")

#: Ends the refusal of a value that a template has probably given.
EMPTY_TEMPLATE_HINT = (
    "A template that renders to nothing gives such a value: check the task and the key that it pulls from"
)
#: The same for a time.
NO_LOGICAL_DATE_HINT = (
    "A template that renders to nothing gives such a value. A run without a logical date has no data interval: use "
    "dag_run.run_after there, or a param"
)

#: Takes a parameter's name and value; gives the value in its final form, or raises a ``ValueError`` that says it all.
Check = Callable[[str, Any], Any]


def invalid_parameter(name: str, value: Any, allowed: str) -> ValueError:
    """Say what is wrong with a parameter.

    :param name: its name.
    :param value: what was given.
    :param allowed: what is allowed, in words.
    :return: the error, to be raised.
    """
    try:
        shown = repr(value)
    except ValueError:
        # A number of thousands of digits, which Python does not write.
        shown = f"a {type(value).__name__} that cannot be shown"
    return ValueError(f"{name}: got {shown if len(shown) <= 200 else shown[:200] + '…'}, allowed is {allowed}.")


def is_templated(value: Any) -> bool:
    """Say whether a value is decided only when the task runs.

    :param value: a parameter, as the DAG has it.
    :return: whether there is a template or another task's output in it.
    """
    if isinstance(value, str):
        return any(mark in value for mark in ("{{", "{%", "{#"))
    if isinstance(value, Mapping):
        return any(is_templated(item) for pair in value.items() for item in pair)
    if isinstance(value, (list, tuple, set)):
        return any(is_templated(item) for item in value)
    # What Airflow resolves at run time (XComArg and its kin) has this method.
    return hasattr(value, "resolve")


def to_list(value: Any) -> list[Any] | None:
    """Read the items of a sequence that is not a text.

    :param value: what was given; the output of a mapped task is a sequence that Airflow reads item by item.
    :return: the items, or ``None`` if it is no sequence.
    """
    return list(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)) else None


def is_blank(value: Any) -> bool:
    """Return whether a value is what a template gives that renders to nothing.

    :param value: a parameter, as rendered.
    :return: whether it is ``None``, the text ``None``, or blank.
    """
    return value is None or (isinstance(value, str) and value.strip() in ("", "None"))


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
        raise invalid_parameter(name, value, "a text that is not empty")
    return value


def identifier(name: str, value: Any) -> str:
    """Check the id of something in Planasonix, which goes into the path of requests.

    :param name: the parameter's name, for the message.
    :param value: what was given.
    :return: the same.
    :raises ValueError: if it could be no id: a path, a whole address, a name with a line break.
    """
    is_one = (
        isinstance(value, str) and value.isprintable() and not _FORBIDDEN_IN_ID.intersection(value) and value.strip(".")
    )
    # Responses can hold thousands of ids, so only a refused one is checked for its reason.
    if not is_one or value == "None":
        reason = (
            f". {EMPTY_TEMPLATE_HINT}"
            if is_blank(value)
            else ": no white space, no control character, none of / \\ ? # %"
        )
        raise invalid_parameter(name, value, f"an id as Planasonix gives it{reason}")
    return str(value)


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
    if isinstance(value, bool) or not 0 < number <= MAX_SECONDS:
        raise invalid_parameter(name, value, "a number of seconds above 0 and up to ten years, or a timedelta")
    return number


def poll_interval(name: str, value: Any) -> float:
    """Check the time between two polls.

    :param name: the parameter's name, for the message.
    :param value: what was given, as for :func:`seconds`.
    :return: the seconds.
    :raises ValueError: if it is no stretch of time, or less than half a second.
    """
    number = seconds(name, value)
    if number < MIN_POLL_SECONDS:
        raise invalid_parameter(name, value, f"a number of seconds from {MIN_POLL_SECONDS:g}, or a timedelta")
    return number


def one_of(*allowed: str) -> Check:
    """Make a check that lets only some words pass.

    :param allowed: the words.
    :return: the check.
    """

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise invalid_parameter(name, value, ", ".join(allowed))
        return value

    return check


PRIORITIES = ("low", "normal", "high")
priority = one_of(*PRIORITIES)


def list_of(allowed: Collection[str]) -> Check:
    """Make a check that lets only lists of some words pass.

    :param allowed: the words.
    :return: the check; it gives a list without doubles.
    """

    def check(name: str, value: Any) -> list[str]:
        words = list(value) if isinstance(value, AbstractSet) else to_list(value)
        if not words or not all(isinstance(word, str) and word in allowed for word in words):
            raise invalid_parameter(name, words or value, f"a list of {', '.join(sorted(allowed))}")
        return list(dict.fromkeys(words))

    return check


def flag(name: str, value: Any) -> bool:
    """Check what is true or false: any text, ``"False"`` included, would count as true.

    :param name: the parameter's name, for the message.
    :param value: what was given.
    :return: the same.
    :raises ValueError: if it is neither.
    """
    if not isinstance(value, bool):
        raise invalid_parameter(name, value, "True or False")
    return value


def utc(name: str, value: Any) -> datetime:
    """Check a moment.

    :param name: the parameter's name, for the message.
    :param value: what was given: a ``datetime``, or ISO 8601 text; one without an offset is UTC.
    :return: the moment, in UTC.
    :raises ValueError: if it is none.
    """
    try:
        moment = datetime.fromisoformat(value.strip()) if isinstance(value, str) else value
        if not YEARS[0] <= moment.year <= YEARS[1]:
            raise ValueError
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (AttributeError, TypeError, ValueError):
        hint = f". {NO_LOGICAL_DATE_HINT}" if is_blank(value) else ""
        raise invalid_parameter(
            name, value, f"a time: a datetime, or ISO 8601 text as 2025-01-01T00:00:00Z{hint}"
        ) from None


def window(start_at: Any, end_at: Any, names: tuple[str, str] = ("start_at", "end_at")) -> tuple[datetime, datetime]:
    """Return the start and the end of a window, in UTC.

    :raises ValueError: if one is not a time, or the window does not end after it starts.
    """
    start, end = utc(names[0], start_at), utc(names[1], end_at)
    if end <= start:
        raise invalid_parameter(names[1], str(end_at), f"a time after {names[0]} ({start_at})")
    return start, end


def tables(name: str, value: Any) -> list[str]:
    """Check a list of table names.

    :param name: the parameter's name, for the message.
    :param value: what was given.
    :return: the names.
    :raises ValueError: if there is none, one is blank, or one is there twice.
    """
    names = to_list(value)
    if not names:
        raise invalid_parameter(name, value, "a list of table names, or None for all tables")
    if not all(isinstance(table, str) and table.strip() for table in names):
        raise invalid_parameter(name, names, "table names that are texts and not blank")
    if doubles := sorted({table for table in names if names.count(table) > 1}):
        raise invalid_parameter(name, names, f"each table once; twice there is {', '.join(doubles)}")
    return names


def metadata(name: str, value: Any) -> dict[str, Any]:
    """Check what is to be sent as a JSON object.

    :param name: the parameter's name, for the message.
    :param value: what was given.
    :return: the same, as JSON types.
    :raises ValueError: if JSON cannot hold it.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise invalid_parameter(name, value, "a mapping whose keys are texts")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False, default=_json_list))
    except (TypeError, ValueError) as reason:
        raise invalid_parameter(name, value, f"what JSON can hold ({reason})") from None
    return plain


def _json_list(value: Any) -> list[Any]:
    items = to_list(value)
    if items is None:
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
    return items


def webhook_url(name: str, value: Any) -> str:
    """Return the URL of a webhook, which must be encrypted: https, or http to this machine.

    :raises ValueError: if it is something else. The message shows nothing that follows the host, because whoever knows
        the rest may send deliveries there.
    """
    try:
        parts = urlsplit(value)
        is_url = re.fullmatch(r"[!-~]+", value) and parts.hostname and parts.port != 0
        is_safe = value.startswith("https://") or (value.startswith("http://") and is_loopback(parts.hostname or ""))
    except (AttributeError, TypeError, ValueError):
        is_url = is_safe = False
    if not is_url or not is_safe:
        allowed = "an https URL, or an http one of this machine, in ASCII characters without blanks"
        raise invalid_parameter(name, _shortened_url(value), allowed)
    return str(value)


def _shortened_url(url: Any) -> Any:
    if not isinstance(url, str):
        return type(url)
    scheme, user, host, rest = re.findall(r"(?s)^([^/?#]*//)?([^/?#]*@)?([^/?#]*)(.*)$", url)[0]
    return f"{scheme}{'***@' if user else ''}{host}{'/…' if rest else ''}"


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine: ``localhost``, a name below it, or a loopback address without brackets."""
    name = host.lower().removesuffix(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
    # Python before 3.13 ignores the IPv4 address that an IPv6 address maps.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address.is_loopback or bool(mapped and mapped.is_loopback)
