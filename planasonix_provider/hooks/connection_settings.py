"""Reads an Airflow connection of the type Planasonix: where the API is, who asks, where the web app is. No I/O."""

from __future__ import annotations

import difflib
import ipaddress
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
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
from planasonix_provider.validators import is_loopback

#: A longer unknown key of the extra is not shown.
MAX_SHOWN_KEY_LENGTH = 40

DEFAULT_WEB_URL = "https://app.planasonix.com"

_USER_AGENT = (
    f"airflow-provider-planasonix/{__version__} Airflow/{airflow_version} Python/{sys.version.split(maxsplit=1)[0]}"
)
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "": False}


@dataclass(frozen=True)
class ConnectionSettings:
    """What an Airflow connection says.

    :param account: where the API is, and who asks.
    :param web_url: where the web app is, without a slash at the end.
    :param ignored: a sentence on the keys of the extra that nothing reads, or ``None``; it shows no value.
    """

    client_config: ClientConfig
    web_url: str
    unknown_keys_warning: str | None = None

    def job_url(self, job_id: str) -> str:
        """Give the address of a job's page in the web app.

        :param job_id: the job.
        :return: the address.
        """
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
    """Read the fields of an Airflow connection.

    :param conn_id: the connection's id, for messages.
    :param password: the API key.
    :param host: the API's host, with or without scheme, port and path; empty for the default.
    :param port: the port, where the host does not hold it.
    :param schema: the scheme, where the host does not hold it: what stands behind the slash of a connection URI.
    :param extra: the connection's extra: ``organization_id``, ``web_url``, ``timeout``, ``verify``, ``allow_http``.
    :return: what the connection says.
    :raises PlanasonixConfigurationError: if something is missing or makes no sense; the message names the field.
    """
    reader = _ConnectionFields(conn_id, extra or {})
    return ConnectionSettings(
        client_config=ClientConfig(
            api_key=reader.api_key(password),
            base_url=reader.base_url(host, port, schema),
            organization_id=reader.organization_id(),
            **reader.timeouts(),
            verify=reader.verify(),
            user_agent=_USER_AGENT,
            conn_id=conn_id,
        ),
        web_url=reader.web_url(),
        unknown_keys_warning=reader.ignored(),
    )


class _ConnectionFields:
    """Reads one field each, and refuses it by name."""

    def __init__(self, conn_id: str, extra: Mapping[str, Any]) -> None:
        self.conn_id = conn_id
        if not isinstance(extra, Mapping):
            self.error("extra", extra, "a JSON object")
        # The form sends what was left empty as an empty text.
        self.extra = {name: value for name, value in extra.items() if value is not None and str(value).strip()}

    def error(self, field: str, given: object, allowed: str) -> NoReturn:
        raise PlanasonixConfigurationError(
            f"Airflow connection {self.conn_id!r}, {field}: got {given!r}, allowed is {allowed}."
        )

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
        given = _bracketed((host or "").strip())
        if not given:
            return DEFAULT_BASE_URL
        if port and not 0 < port < 65536:
            self.error("port", port, "a number from 1 to 65535")
        address = self.address("host", given if "://" in given else f"{(schema or 'https').lower()}://{given}")
        if port and not urlsplit(address).port:
            parts = urlsplit(address)
            address = parts._replace(netloc=f"{parts.netloc}:{port}").geturl()
        parts = urlsplit(address)
        if parts.scheme == "http" and not is_loopback(parts.hostname or "") and not self.flag("allow_http"):
            self.error(
                "host",
                given,
                "an https:// address: plain http sends the API key unencrypted. If that is meant, put "
                '"allow_http": true into the extra',
            )
        # The routes bring their own prefix; who copied it from the reference means the same host.
        return address.removesuffix("/api/v1").rstrip("/")

    def web_url(self) -> str:
        return self.address("extra 'web_url'", str(self.extra.get("web_url", DEFAULT_WEB_URL)).strip())

    def address(self, field: str, given: str) -> str:
        """Check an address: what is no http would be no link, and user names or queries would be sent along."""
        try:
            parts = urlsplit(given)
            sound = (
                parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
            )
        except ValueError:
            sound = False
        if not sound or "@" in parts.netloc or any(c in "?# " or not c.isprintable() for c in given):
            # Without the value: an address with a user name may hold a password.
            shown = given if "@" not in given else "an address with a user name"
            self.error(field, shown, "a host or an http(s) address without user name, query or fragment")
        return given.rstrip("/")

    def organization_id(self) -> str | None:
        value = self.extra.get("organization_id")
        if value is None:
            return None
        if not isinstance(value, str) or not value.isascii() or not value.strip().isprintable():
            self.error("extra 'organization_id'", value, "a text of ASCII characters")
        return value.strip()

    def timeouts(self) -> dict[str, float]:
        given = self.extra.get("timeout")
        value = _parsed(given)
        both = value if isinstance(value, Mapping) else {} if value is None else {"read": value}
        timeouts = {"connect": DEFAULT_CONNECT_TIMEOUT, "read": DEFAULT_READ_TIMEOUT, **both}
        if set(timeouts) != {"connect", "read"} or not all(_is_positive(seconds) for seconds in timeouts.values()):
            self.error("extra 'timeout'", given, 'a number of seconds above 0, or {"connect": 5, "read": 30}')
        return {"connect_timeout": float(timeouts["connect"]), "read_timeout": float(timeouts["read"])}

    def verify(self) -> bool | str:
        value = self.extra.get("verify", True)
        if isinstance(value, bool):
            return value
        if not isinstance(value, str):
            self.error("extra 'verify'", value, "true, false, or the path of a CA bundle")
        return _BOOLEANS.get(value.strip().lower(), value.strip())

    def ignored(self) -> str | None:
        unknown = sorted(str(name) for name in self.extra if name not in CONN_FIELDS)
        if not unknown:
            return None
        return (
            f"The extra of Airflow connection {self.conn_id!r} has {', '.join(map(_suggested, unknown))}: nothing "
            f"reads {'that key' if len(unknown) == 1 else 'these keys'}. Known keys are {', '.join(CONN_FIELDS)}."
        )

    def flag(self, name: str) -> bool:
        value = self.extra.get(name, False)
        truth = _BOOLEANS.get(value.strip().lower()) if isinstance(value, str) else value
        if not isinstance(truth, bool):
            self.error(f"extra {name!r}", value, "true or false")
        return truth


def _suggested(name: str) -> str:
    """Return an unknown key, with the known one that is nearest."""
    # A key of great length may be a value that was pasted into the wrong place.
    shown = repr(name) if len(name) <= MAX_SHOWN_KEY_LENGTH else f"a key of {len(name)} characters"
    near = difflib.get_close_matches(name.lower().replace("-", "_"), CONN_FIELDS, n=1)
    return f"{shown} (did you mean {near[0]!r}?)" if near else shown


def _bracketed(host: str) -> str:
    """Put a bare IPv6 address into brackets: Airflow takes them away when it reads a connection URI."""
    try:
        return f"[{ipaddress.IPv6Address(host)}]"
    except ValueError:
        return host


def _parsed(value: Any) -> Any:
    """Read a number or an object that comes as text, from the form or from a connection URI."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0
