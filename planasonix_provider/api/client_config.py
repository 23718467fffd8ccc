"""Where the API is, and who asks."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from functools import cache
from typing import NoReturn, Self

import httpx
from pydantic import SecretStr

from planasonix_provider import __version__
from planasonix_provider.api.errors import THE_CONNECTION

DEFAULT_BASE_URL = "https://api.planasonix.com"
#: Seconds.
DEFAULT_CONNECT_TIMEOUT = 5.0
DEFAULT_READ_TIMEOUT = 30.0

#: A text this short is no key that could be told from ordinary words.
_MIN_REDACTED_LENGTH = 6


@dataclass(frozen=True)
class ClientConfig:
    """Where the API is, and who asks.

    :param api_key: the API key; it shows in no repr.
    :param base_url: scheme, host and, behind a gateway, the path before ``/api/v1``; default
        ``https://api.planasonix.com``.
    :param organization_id: sent as ``X-Organization-ID``, for a key that serves several organisations; ``None``, the
        default, sends none.
    :param connect_timeout: for how many seconds to try to connect; default 5.
    :param read_timeout: for how many seconds to wait for the next bytes of an answer; default 30.
    :param try_timeout: for how many seconds one try may last in all, however steadily its bytes drip; ``None``, the
        default, is the time to connect and four times the time to read.
    :param verify: whether to check the server's certificate, or the path of the CA bundle to check it by; default yes.
    :param user_agent: who the server is told is asking; default: this package, and Python, with their versions.
    :param conn_id: the Airflow connection that says all this, for messages; ``None`` where there is none.
    :raises ValueError: if the key could not be sent as a header; the message does not hold it.
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

    def __post_init__(self) -> None:
        key = self.api_key.get_secret_value()
        # The HTTP library would refuse such a header as well, and would print it.
        if not key or not all("!" <= character <= "~" for character in key):
            raise ValueError("The API key is empty, or holds a space, a line break or a character that is not ASCII.")

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "An Account holds the API key, so it is not pickled. Pickle the PlanasonixHook: it reads the key again."
        )

    def __copy__(self) -> Self:
        # It never changes, and a copy within the process writes the key nowhere.
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        headers = {
            "Authorization": f"Bearer {self.api_key.get_secret_value()}",
            "User-Agent": self.user_agent,
        }
        if self.organization_id:
            headers["X-Organization-ID"] = self.organization_id
        return headers

    @property
    def host(self) -> str:
        """The API's host as data sets are named after it: in lower case, its port only where that is not the usual."""
        return httpx.URL(self.base_url).netloc.decode("ascii")

    @property
    def total_timeout(self) -> float:
        """For how many seconds one try may last in all."""
        return self.connect_timeout + 4 * self.read_timeout if self.try_timeout is None else self.try_timeout

    def with_short_timeouts(self) -> ClientConfig:
        """Give the same account, for a process that has only seconds left.

        :return: the account, with timeouts of 1 s to connect, 1.5 s to read and 2.5 s in all.
        """
        return replace(self, connect_timeout=1.0, read_timeout=1.5, try_timeout=2.5)

    @property
    def connection(self) -> str:
        """What messages call the Airflow connection: with its id, where that is known."""
        return f"Airflow connection {self.conn_id!r}" if self.conn_id else THE_CONNECTION

    def redact(self, text: str) -> str:
        """Take the key out of a text that came from elsewhere, for a server may send back what it was sent.

        :param text: what is to be shown.
        :return: the text, with asterisks where the key was.
        """
        key = self.api_key.get_secret_value()
        return text.replace(key, "***") if len(key) >= _MIN_REDACTED_LENGTH else text

    def redact_body(self, body: bytes) -> bytes:
        """Replace the key in the body of an answer, also if JSON writes it with escapes.

        :param body: the body, unpacked.
        :return: the body, with asterisks where the key was. It is JSON again if it was JSON before.
        """
        key = self.api_key.get_secret_value()
        if len(key) < _MIN_REDACTED_LENGTH:
            return body
        body = body.replace(key.encode(), b"***")
        return _escaped(key).sub(b"***", body) if b"\\" in body else body


@cache
def _escaped(key: str) -> re.Pattern[bytes]:
    """Match a key in whichever way JSON may write its characters."""
    ways = (
        rb"(?:" + re.escape(letter.encode()) + rb"|\\" + re.escape(letter.encode()) + rb"|\\u(?i:%04x))" % ord(letter)
        for letter in key
    )
    return re.compile(b"".join(ways))
