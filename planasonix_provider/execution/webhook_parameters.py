"""Checks what a DAG's author wrote of a webhook subscription, as far as that takes nothing of the API."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from planasonix_provider.secret_stores import SecretStore, secret_store
from planasonix_provider.validators import invalid_parameter


def url(name: str, value: Any) -> str:
    """Check where deliveries go; :mod:`planasonix_provider.api.routes` looks more closely, when the task runs.

    :param name: the parameter's name, for the message.
    :param value: what was given.
    :return: the same.
    :raises ValueError: if it is no https URL, nor an http one of this machine.
    """
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        host = parts.hostname if parts else None
    except ValueError:
        parts = host = None
    is_here = host in ("localhost", "::1") or (host or "").startswith("127.")
    if parts is None or not host or not (parts.scheme == "https" or (parts.scheme == "http" and is_here)):
        # Without the path: who knows it may often send there.
        shown = (
            f"{parts.scheme}://{host}" if parts and host else type(value) if not isinstance(value, str) else "no URL"
        )
        raise invalid_parameter(name, shown, "an https URL, or an http one of this machine")
    return str(value)


def destination(_: str, value: Any) -> SecretStore:
    """Check where a secret is to go.

    :param value: what was given.
    :return: what keeps it there.
    :raises ValueError: if it is nothing that could.
    """
    return secret_store(value)
