"""Validators for the parameters of operators, sensors and API calls.

Literal values are validated when the DAG is parsed, templated values before the first request. DAG files import this
module, so importing it must stay light.
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

#: Ten years: a larger number could overflow when it is added to a date.
MAX_SECONDS = 10 * 365 * 86_400

#: With shorter intervals, a few tasks use up the rate limit of the whole API key.
MIN_POLL_SECONDS = 0.5

_AGE_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

#: The first and the last valid year, far enough from the limits of ``datetime`` that arithmetic cannot overflow.
YEARS = (1000, 9000)

#: Characters that could change the path of a request, for the API or for a proxy.
_FORBIDDEN_IN_ID = frozenset(" /\\?#%")

#: Ends the message about a value that an empty template probably produced.
EMPTY_TEMPLATE_HINT = (
    "A template that renders to nothing gives such a value: check the task and the key that it pulls from"
)
#: The same for a time.
NO_LOGICAL_DATE_HINT = (
    "A template that renders to nothing gives such a value. A run without a logical date has no data interval: use "
    "dag_run.run_after there, or a param"
)

#: Takes a parameter's name and value; returns the normalized value, or raises a ``ValueError`` for the user.
Check = Callable[[str, Any], Any]


def invalid_parameter(name: str, value: Any, allowed: str) -> ValueError:
    """Return the error for an invalid parameter."""
    try:
        shown = repr(value)
    except ValueError:
        # Python does not format integers with thousands of digits.
        shown = f"a {type(value).__name__} that cannot be shown"
    return ValueError(f"{name}: got {shown if len(shown) <= 200 else shown[:200] + '…'}, allowed is {allowed}.")


def is_templated(value: Any) -> bool:
    """Return whether a value contains a template or the output of another task."""
    if isinstance(value, str):
        return any(mark in value for mark in ("{{", "{%", "{#"))
    if isinstance(value, Mapping):
        return any(is_templated(item) for pair in value.items() for item in pair)
    if isinstance(value, (list, tuple, set)):
        return any(is_templated(item) for item in value)
    # XComArg and other values that Airflow resolves at run time have this method.
    return hasattr(value, "resolve")


def to_list(value: Any) -> list[Any] | None:
    """Return the items of a sequence, such as the output of a mapped task; ``None`` for a text or a non-sequence."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)) else None


def is_blank(value: Any) -> bool:
    """Return whether a value looks like the result of an empty template: ``None``, the text ``None``, or blank."""
    return value is None or (isinstance(value, str) and value.strip() in ("", "None"))


def format_utc(moment: datetime) -> str:
    """Return a UTC time as the API writes it, such as ``2025-03-27T14:22:10Z``."""
    return moment.isoformat().replace("+00:00", "Z")


def optional(check: Check) -> Check:
    """Return a validator that also accepts ``None``."""
    return lambda name, value: None if value is None else check(name, value)


def text(name: str, value: Any) -> str:
    """Return a text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise invalid_parameter(name, value, "a text that is not empty")
    return value


def identifier(name: str, value: Any) -> str:
    """Return the id of a Planasonix object. It is safe in the path of a request: no path, no URL, no line break."""
    is_valid = isinstance(value, str) and value.isprintable() and not _FORBIDDEN_IN_ID.intersection(value)
    # Responses can contain thousands of ids, so the message is built only for an invalid one.
    if not is_valid or not value.strip(".") or value == "None":
        reason = (
            f". {EMPTY_TEMPLATE_HINT}"
            if is_blank(value)
            else ": no white space, no control character, none of / \\ ? # %, not only dots"
        )
        raise invalid_parameter(name, value, f"an id as Planasonix gives it{reason}")
    return str(value)


def seconds(name: str, value: Any) -> float:
    """Return a duration in seconds: from a number, a text (the result of a template) or a ``timedelta``."""
    try:
        number = value.total_seconds() if isinstance(value, timedelta) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not 0 < number <= MAX_SECONDS:
        raise invalid_parameter(name, value, "a number of seconds above 0 and up to ten years, or a timedelta")
    return number


def poll_interval(name: str, value: Any) -> float:
    """Return the seconds between two polls, which are at least half a second."""
    number = seconds(name, value)
    if number < MIN_POLL_SECONDS:
        raise invalid_parameter(name, value, f"a number of seconds from {MIN_POLL_SECONDS:g}, or a timedelta")
    return number


def one_of(*allowed: str) -> Check:
    """Return a validator that accepts one of some words."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise invalid_parameter(name, value, ", ".join(allowed))
        return value

    return check


PRIORITIES = ("low", "normal", "high")
priority = one_of(*PRIORITIES)


def list_of(allowed: Collection[str]) -> Check:
    """Return a validator that accepts lists and sets of some words. It returns a list without duplicates."""

    def check(name: str, value: Any) -> list[str]:
        words = list(value) if isinstance(value, AbstractSet) else to_list(value)
        if not words or not all(isinstance(word, str) and word in allowed for word in words):
            raise invalid_parameter(name, words or value, f"a list of {', '.join(sorted(allowed))}")
        return list(dict.fromkeys(words))

    return check


def flag(name: str, value: Any) -> bool:
    """Return a boolean. Texts are invalid, because even ``"False"`` would be true."""
    if not isinstance(value, bool):
        raise invalid_parameter(name, value, "True or False")
    return value


def utc(name: str, value: Any) -> datetime:
    """Return a time in UTC: from a ``datetime`` or an ISO 8601 text; one without an offset is UTC."""
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


def age(name: str, value: Any) -> timedelta:
    """Return an age such as ``10m``."""
    match = re.fullmatch(r"(\d{1,5})([mhdw])", str(value).strip(), re.ASCII)
    if match is None:
        raise invalid_parameter(name, value, "an age such as 10m, 24h, 7d or 2w")
    return int(match[1]) * _AGE_UNITS[match[2]]


def utc_or_age(name: str, value: str, now: datetime) -> datetime:
    """Return a time in UTC: from an ISO 8601 text, or from an age such as ``24h``, counted back from ``now``."""
    age = re.fullmatch(r"(\d{1,5})([mhdw])", value.strip(), re.ASCII)
    try:
        return utc(name, now - int(age[1]) * _AGE_UNITS[age[2]] if age else value)
    except ValueError:
        allowed = "a time such as 2025-01-01T00:00:00Z, or an age such as 30m, 24h, 7d or 2w"
        raise invalid_parameter(name, value, allowed) from None


def window(start_at: Any, end_at: Any, names: tuple[str, str] = ("start_at", "end_at")) -> tuple[datetime, datetime]:
    """Return the start and the end of a window, in UTC. The end must be after the start."""
    start, end = utc(names[0], start_at), utc(names[1], end_at)
    if end <= start:
        raise invalid_parameter(names[1], str(end_at), f"a time after {names[0]} ({start_at})")
    return start, end


def tables(name: str, value: Any) -> list[str]:
    """Return a list of table names: not empty, no blank name, no duplicates."""
    names = to_list(value)
    if not names:
        raise invalid_parameter(name, value, "a list of table names, or None for all tables")
    if not all(isinstance(table, str) and table.strip() for table in names):
        raise invalid_parameter(name, names, "table names that are texts and not blank")
    if doubles := sorted({table for table in names if names.count(table) > 1}):
        raise invalid_parameter(name, names, f"each table once; twice there is {', '.join(doubles)}")
    return names


def metadata(name: str, value: Any) -> dict[str, Any]:
    """Return a JSON object made of JSON types."""
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

    The path of a webhook's URL may be a secret, so an error does not show it.
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
