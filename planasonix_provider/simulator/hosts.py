"""Host names, and the check of the ``Host`` header."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from ipaddress import ip_address

from planasonix_provider.simulator.model.api_errors import ApiError

#: Allows every host.
ANY_HOST = "*"

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?")
_HOST_HEADER = re.compile(r"(?P<host>\[[^\[\]]+\]|[^:\[\]]+)(:[0-9]*)?")


def host_name(text: str) -> str:
    """Return a host name in lower case without a final dot, or an IP address without brackets."""
    name = text.lower().removesuffix(".")
    address = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    try:
        return str(ip_address(address))
    except ValueError:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"got {text!r}, allowed is a host name or an IP address, without scheme and port."
            ) from None
        return name


def host_names(parameter: str, hosts: Iterable[str]) -> frozenset[str]:
    """Return hosts as :func:`host_name`; the error begins with the parameter's name."""
    try:
        return frozenset(host_name(host) for host in hosts)
    except ValueError as error:
        raise ValueError(f"{parameter}: {error}") from None


def check_host_header(headers: Iterable[tuple[bytes, bytes]], allowed: Collection[str]) -> None:
    """Reject a request whose ``Host`` is not a name of the simulator.

    With DNS rebinding, a web page gives its own name the simulator's address. The browser then takes both for one site,
    and only ``Host`` shows the difference. A page cannot rebind ``localhost`` or an IP address, so these are always
    allowed.
    """
    found = [value.decode("latin-1") for name, value in headers if name == b"host"]
    parts = _HOST_HEADER.fullmatch(found[0]) if len(found) == 1 else None
    try:
        host = host_name(parts["host"]) if parts else ""
    except ValueError:
        host = ""
    if host != "localhost" and host not in allowed and not _is_address(host):
        raise ApiError(
            "forbidden",
            f"the request was sent to host {', '.join(found)!r}, which is not a name of this simulator; use its IP "
            "address, or start it with --allow-host and that name",
        )


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
