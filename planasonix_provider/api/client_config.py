"""The configuration of a client: address, API key, timeouts, TLS."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NoReturn, Self

import httpx
from pydantic import SecretStr

from planasonix_provider import __version__
from planasonix_provider.api.errors import THE_CONNECTION
from planasonix_provider.api.observer import NoObserver, RequestObserver

DEFAULT_BASE_URL = "https://api.planasonix.com"
#: Seconds.
DEFAULT_CONNECT_TIMEOUT = 5.0
DEFAULT_READ_TIMEOUT = 30.0

#: A shorter key could be an ordinary word, and is not redacted.
_MIN_REDACTED_LENGTH = 6


@dataclass(frozen=True)
class ClientConfig:
    """The configuration of a client.

    :param api_key: the API key; no repr shows it.
    :param base_url: scheme, host and, behind a gateway, the path before ``/api/v1``.
    :param organization_id: sent as ``X-Organization-ID``, for a key that serves several organizations; ``None`` sends
        none.
    :param connect_timeout: the seconds to wait for a connection.
    :param read_timeout: the seconds to wait for the next bytes of a response.
    :param try_timeout: the seconds that one try may take in total; default: ``connect_timeout`` and four times
        ``read_timeout``.
    :param verify: whether to check the server's certificate, or the path of the CA bundle to check it with.
    :param user_agent: the ``User-Agent`` header; default: the versions of this package and of Python.
    :param conn_id: the id of the Airflow connection, for messages; ``None`` if there is none.
    :param observer: receives each request that is sent, for metrics; default: none.
    :raises ValueError: if the key cannot be sent as a header; the message does not show it.
    """

    api_key: SecretStr
    base_url: str = DEFAULT_BASE_URL
    organization_id: str | None = None
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT
    read_timeout: float = DEFAULT_READ_TIMEOUT
    try_timeout: float | None = None
    verify: bool | str = True
    user_agent: str = f"airflow-provider-planasonix/{__version__} Python/{sys.version.split()[0]}"
    conn_id: str | None = None
    observer: RequestObserver = field(default_factory=NoObserver, compare=False, repr=False)

    def __post_init__(self) -> None:
        key = self.api_key.get_secret_value()
        # httpx would reject such a header as well, but would show it.
        if not key or not all("!" <= character <= "~" for character in key):
            raise ValueError("The API key is empty, or holds a space, a line break or a character that is not ASCII.")

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A ClientConfig holds the API key, so it is not pickled. Pickle the PlanasonixHook: it reads the key again."
        )

    def __copy__(self) -> Self:
        # Immutable, and a copy within the process writes the key nowhere.
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every request."""
        headers = {
            "Authorization": f"Bearer {self.api_key.get_secret_value()}",
            "User-Agent": self.user_agent,
        }
        if self.organization_id:
            headers["X-Organization-ID"] = self.organization_id
        return headers

    @property
    def host(self) -> str:
        """The API's host for the names of datasets: in lower case, with the port if it is not the default."""
        return httpx.URL(self.base_url).netloc.decode("ascii")

    @property
    def total_timeout(self) -> float:
        """The seconds that one try may take in total."""
        return self.connect_timeout + 4 * self.read_timeout if self.try_timeout is None else self.try_timeout

    def with_short_timeouts(self) -> ClientConfig:
        """Return a copy for a signal handler that has seconds left: 1 s to connect, 1.5 s to read, 2.5 s in total.

        It has no observer: the signal may have interrupted the code that sends metrics, with its locks held.
        """
        return replace(self, connect_timeout=1.0, read_timeout=1.5, try_timeout=2.5, observer=NoObserver())

    @property
    def connection(self) -> str:
        """The Airflow connection as messages name it, with its id if that is known."""
        return f"Airflow connection {self.conn_id!r}" if self.conn_id else THE_CONNECTION

    def redact(self, text: str) -> str:
        """Replace the key in a text, because a server may send back what it received."""
        key = self.api_key.get_secret_value()
        return text.replace(key, "***") if len(key) >= _MIN_REDACTED_LENGTH else text

    def redact_body(self, body: bytes) -> bytes:
        """Replace the key in a body, also if JSON escapes it. A JSON body stays valid JSON."""
        key = self.api_key.get_secret_value()
        if len(key) < _MIN_REDACTED_LENGTH:
            return body
        body = body.replace(key.encode(), b"***")
        return _escaped(key).sub(b"***", body) if b"\\" in body else body


@cache
def _escaped(key: str) -> re.Pattern[bytes]:
    """Return a pattern for the key with any of its characters escaped as in JSON."""
    ways = (
        rb"(?:" + re.escape(letter.encode()) + rb"|\\" + re.escape(letter.encode()) + rb"|\\u(?i:%04x))" % ord(letter)
        for letter in key
    )
    return re.compile(b"".join(ways))
