"""Validates the arguments of routes. :mod:`planasonix_provider.validators` has the checks that operators use, too."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import SecretStr
from pydantic_core import PydanticSerializationError, to_json

from planasonix_provider import validators
from planasonix_provider.api.event_types import warn_of_unknown_events
from planasonix_provider.api.request import PAGE_SIZE
from planasonix_provider.start_parameters import StartKind, checks_of
from planasonix_provider.validators import invalid_parameter

MIN_SECRET_LENGTH = 16


def webhook_secret(secret: Any) -> str | None:
    """Return a webhook's secret in plain text. No message shows the secret."""
    plain = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
    if plain is None:
        return None
    if not isinstance(plain, str):
        raise ValueError(f"secret: got a {type(plain).__name__}, allowed is a text, or None.")
    if len(plain) < MIN_SECRET_LENGTH:
        raise ValueError(f"secret: got {len(plain)} characters, allowed are at least {MIN_SECRET_LENGTH}, or None.")
    # A receiver would need exactly the same invisible characters to verify a signature.
    if not plain.isprintable() or plain != plain.strip():
        raise ValueError(
            "secret: got one with white space around it or a control character in it, as the line break at a file's "
            "end, allowed is a text without."
        )
    return plain


def word(name: str, value: Any) -> str:
    """Return a text that can be the value of a filter."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise invalid_parameter(name, value, "a text that is not empty, without control characters")
    return value


def event(name: str, value: Any) -> str:
    """Return the name of an event; warn if this version does not know it."""
    warn_of_unknown_events(name, {word(name, value)})
    return str(value)


def events(name: str, value: Any) -> list[str]:
    """Return the names of events; warn of those that this version does not know."""
    is_some = isinstance(value, Collection) and not isinstance(value, (str, bytes, Mapping)) and value
    if not is_some or not all(isinstance(one, str) and one.strip() and one.isprintable() for one in value):
        raise invalid_parameter(name, value, "a list of events, such as ['job.succeeded']")
    warn_of_unknown_events(name, set(value))
    return list(value)


def validated_start(kind: StartKind, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a start as they are sent, without those that are ``None``."""
    checks = checks_of(kind)
    return {name: _json_serializable(checks[name], name, value) for name, value in given.items() if value is not None}


def _json_serializable(check: validators.Check, name: str, value: Any) -> Any:
    try:
        checked = check(name, value)
        to_json(checked)
    except (RecursionError, PydanticSerializationError):
        raise ValueError(
            f"{name}: got a value that is nested too deep, or contains half a character (a lone surrogate), allowed is "
            "what JSON can hold."
        ) from None
    return checked


def page_size(limit: Any) -> int:
    """Return the page size for a list of at most ``limit`` items; ``None`` is all items."""
    if limit is None:
        return PAGE_SIZE
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise invalid_parameter("limit", limit, "a whole number from 1, or None for all")
    return min(limit, PAGE_SIZE)


optional_id = validators.optional(validators.identifier)
optional_url = validators.optional(validators.webhook_url)
optional_event = validators.optional(event)
optional_events = validators.optional(events)
optional_flag = validators.optional(validators.flag)
optional_word = validators.optional(word)
optional_utc = validators.optional(validators.utc)
