"""Parses an Airflow connection of the type Planasonix. No I/O."""

from __future__ import annotations

import difflib
import ipaddress
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from airflow import __version__ as airflow_version
from pydantic import SecretStr

from planasonix_provider import __version__
from planasonix_provider.api.client_config import (
    DEFAULT_BASE_URL,
    DEFAULT_CONNECT_TIMEOUT,
    DEFAULT_READ_TIMEOUT,
    ClientConfig,
)
from planasonix_provider.api.errors import PlanasonixConfigurationError
from planasonix_provider.get_provider_info import CONN_FIELDS
from planasonix_provider.hooks.connection_fields import ConnectionFields
from planasonix_provider.hooks.request_metrics import RequestMetrics
from planasonix_provider.validators import is_loopback

#: A longer unknown key of the extra is not shown: it may be a value in the wrong place.
MAX_SHOWN_KEY_LENGTH = 40

DEFAULT_WEB_URL = "https://app.planasonix.com"

_USER_AGENT = (
    f"airflow-provider-planasonix/{__version__} Airflow/{airflow_version} Python/{sys.version.split(maxsplit=1)[0]}"
)
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "": False}


@dataclass(frozen=True)
class ConnectionSettings:
    """The content of an Airflow connection.

    :param client_config: the API's address, the API key and the timeouts.
    :param web_url: the web app's URL, without a slash at the end.
    :param unknown_keys_warning: names the unknown keys of the extra, without their values; ``None`` if there are none.
    """

    client_config: ClientConfig
    web_url: str
    unknown_keys_warning: str | None = None

    def job_url(self, job_id: str) -> str:
        """Return the URL of a job's page in the web app."""
        return f"{self.web_url}/jobs/{quote(job_id, safe='')}"


def parse_connection(
    conn_id: str,
    *,
    password: str | None,
    host: str | None = None,
    port: int | None = None,
    schema: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> ConnectionSettings:
    """Parse the fields of an Airflow connection.

    :param conn_id: the connection's id, for messages.
    :param password: the API key.
    :param host: the API's host, with or without scheme, port and path; empty for the default.
    :param port: the port, if the host does not contain it.
    :param schema: the scheme, if the host does not contain it. In a connection URI it is the path.
    :param extra: ``organization_id``, ``web_url``, ``timeout``, ``verify``, ``allow_http``.
    :raises PlanasonixConfigurationError: if a field is missing or invalid; the message names the field.
    """
    fields = _PlanasonixFields(conn_id, extra)
    return ConnectionSettings(
        client_config=ClientConfig(
            api_key=fields.api_key(password),
            base_url=fields.base_url(host, port, schema),
            organization_id=fields.organization_id(),
            **fields.timeouts(),
            verify=fields.verify(),
            user_agent=_USER_AGENT,
            conn_id=conn_id,
            observer=RequestMetrics(conn_id),
        ),
        web_url=fields.web_url(),
        unknown_keys_warning=fields.unknown_keys_warning(),
    )


class _PlanasonixFields(ConnectionFields):
    def api_key(self, password: str | None) -> SecretStr:
        key = (password or "").strip()
        if not key:
            raise PlanasonixConfigurationError(
                f"Airflow connection {self.conn_id!r} has no API key. Make one in Planasonix and put it into the "
                "password of the Airflow connection, which its form calls 'API key'."
            )
        if not all("!" <= character <= "~" for character in key):
            raise PlanasonixConfigurationError(
                f"Airflow connection {self.conn_id!r}: its API key holds a space, a line break or a character that is "
                "not ASCII. Copy it again from Planasonix."
            )
        return SecretStr(key)

    def base_url(self, host: str | None, port: int | None, schema: str | None) -> str:
        given = _add_brackets((host or "").strip())
        if not given:
            return DEFAULT_BASE_URL
        if port and not 0 < port < 65536:
            self.error("port", port, "a number from 1 to 65535")
        url = self.url("host", given if "://" in given else f"{(schema or 'https').lower()}://{given}")
        parts = urlsplit(url)
        if port and not parts.port:
            url = parts._replace(netloc=f"{parts.netloc}:{port}").geturl()
        if parts.scheme == "http" and not is_loopback(parts.hostname or "") and not self.flag("allow_http"):
            self.error(
                "host",
                given,
                "an https:// address: plain http sends the API key unencrypted. If you accept that, put "
                '"allow_http": true into the extra',
            )
        # The paths of the routes start with the prefix; the API reference shows URLs that contain it.
        return url.removesuffix("/api/v1").rstrip("/")

    def web_url(self) -> str:
        return self.url("extra 'web_url'", str(self.extra.get("web_url", DEFAULT_WEB_URL)).strip())

    def url(self, field: str, value: str) -> str:
        """Validate a URL: it must work as a link, and must not add a user name or a query to the requests."""
        try:
            parts = urlsplit(value)
            is_valid = (
                parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
            )
        except ValueError:
            is_valid = False
        if not is_valid or "@" in parts.netloc or any(c in "?# " or not c.isprintable() for c in value):
            # A URL with a user name may contain a password, so it is not shown.
            shown = value if "@" not in value else "an address with a user name"
            self.error(field, shown, "a host or an http(s) address without user name, query or fragment")
        return value.rstrip("/")

    def organization_id(self) -> str | None:
        value = self.extra.get("organization_id")
        if value is None:
            return None
        if not isinstance(value, str) or not value.isascii() or not value.strip().isprintable():
            self.extra_error("organization_id", value, "a text of ASCII characters")
        return value.strip()

    def timeouts(self) -> dict[str, float]:
        given = self.extra.get("timeout")
        value = _parse_json(given)
        both = value if isinstance(value, Mapping) else {} if value is None else {"read": value}
        timeouts = {"connect": DEFAULT_CONNECT_TIMEOUT, "read": DEFAULT_READ_TIMEOUT, **both}
        if set(timeouts) != {"connect", "read"} or not all(_is_positive(seconds) for seconds in timeouts.values()):
            self.extra_error("timeout", given, 'a number of seconds above 0, or {"connect": 5, "read": 30}')
        return {"connect_timeout": float(timeouts["connect"]), "read_timeout": float(timeouts["read"])}

    def verify(self) -> bool | str:
        value = self.extra.get("verify", True)
        if isinstance(value, bool):
            return value
        if not isinstance(value, str):
            self.extra_error("verify", value, "true, false, or the path of a CA bundle")
        return _BOOLEANS.get(value.strip().lower(), value.strip())

    def flag(self, name: str) -> bool:
        value = self.extra.get(name, False)
        boolean = _BOOLEANS.get(value.strip().lower()) if isinstance(value, str) else value
        if not isinstance(boolean, bool):
            self.extra_error(name, value, "true or false")
        return boolean

    def unknown_keys_warning(self) -> str | None:
        unknown = sorted(str(name) for name in self.extra if name not in CONN_FIELDS)
        if not unknown:
            return None
        return (
            f"The extra of Airflow connection {self.conn_id!r} has {', '.join(map(_describe_unknown_key, unknown))}: "
            f"nothing reads {'that key' if len(unknown) == 1 else 'these keys'}. "
            f"Known keys are {', '.join(CONN_FIELDS)}."
        )


def _describe_unknown_key(name: str) -> str:
    """Return an unknown key and the known key that is most similar."""
    shown = repr(name) if len(name) <= MAX_SHOWN_KEY_LENGTH else f"a key of {len(name)} characters"
    similar = difflib.get_close_matches(name.lower().replace("-", "_"), CONN_FIELDS, n=1)
    return f"{shown} (did you mean {similar[0]!r}?)" if similar else shown


def _add_brackets(host: str) -> str:
    """Add brackets to an IPv6 address: Airflow removes them when it parses a connection URI."""
    try:
        return f"[{ipaddress.IPv6Address(host)}]"
    except ValueError:
        return host


def _parse_json(value: Any) -> Any:
    """Parse a number or an object that the form or a connection URI has as a text."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0
