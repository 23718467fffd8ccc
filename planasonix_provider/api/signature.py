"""Signs and verifies the bodies of webhook deliveries. No I/O. A body is not decoded before it is verified.

The scheme: HMAC-SHA256 over ``{timestamp}.{raw body}``, or over ``{timestamp}`` alone if the body is empty. The key is
the secret's text in UTF-8. ``X-Planasonix-Timestamp`` contains Unix seconds,
``X-Planasonix-Signature`` ``v1=`` and lower-case hex.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from pydantic import SecretStr

SIGNATURE_HEADER = "X-Planasonix-Signature"
TIMESTAMP_HEADER = "X-Planasonix-Timestamp"

MAX_AGE = timedelta(seconds=300)
#: How far a delivery's time may be in the future, because clocks differ.
MAX_LEAD = timedelta(seconds=60)


class InvalidSignatureError(ValueError):
    """A delivery that cannot be trusted. The message says why, and contains neither secret nor body."""


def sign(body: bytes, secret: SecretStr, timestamp: int) -> str:
    """Sign a delivery.

    :param body: the raw body, as it goes over the wire.
    :param secret: the subscription's signing secret.
    :param timestamp: when the delivery is sent, in Unix seconds; goes into ``X-Planasonix-Timestamp``.
    :return: the value of ``X-Planasonix-Signature``.
    """
    signed = str(timestamp).encode() + (b"." + body if body else b"")
    return "v1=" + hmac.new(secret.get_secret_value().encode(), signed, sha256).hexdigest()


def verify(
    body: bytes,
    *,
    signature: str | None,
    timestamp: str | None,
    secrets: Iterable[SecretStr],
    now: datetime | None = None,
) -> None:
    """Verify that the sender of a delivery has the secret, and that the delivery is not a repeated old one.

    :param body: the raw body, as it came over the wire.
    :param signature: the header ``X-Planasonix-Signature``, or ``None`` if it is missing.
    :param timestamp: the header ``X-Planasonix-Timestamp``, or ``None`` if it is missing.
    :param secrets: the valid signing secrets: two during a rotation.
    :param now: the time; default: this machine's.
    :raises InvalidSignatureError: if a header is missing or malformed, the delivery is over 300 s old or over 60 s
        ahead, or no secret matches.
    :raises ValueError: if there are no secrets.
    """
    known = list(secrets)
    if not known:
        raise ValueError("secrets: got none, allowed is at least one.")
    signature, timestamp = _well_formed(signature, timestamp)
    # All secrets, each in constant time: the duration must not reveal which one matches, or how much of it.
    fits = [hmac.compare_digest(sign(body, secret, int(timestamp)).encode(), signature.encode()) for secret in known]
    if not any(fits):
        raise InvalidSignatureError(
            f"The header {SIGNATURE_HEADER} fits no secret: check that the secret is that of the webhook which sends "
            "here, and was not rotated since."
        )
    _check_age(timestamp, now)


def check_headers(*, signature: str | None, timestamp: str | None, now: datetime | None = None) -> None:
    """Verify the headers of a delivery before its body is read, as :func:`verify` would.

    :param signature: the header ``X-Planasonix-Signature``, or ``None`` if it is missing.
    :param timestamp: the header ``X-Planasonix-Timestamp``, or ``None`` if it is missing.
    :param now: the time; default: this machine's.
    :raises InvalidSignatureError: if a header is missing or malformed, or the delivery is over 300 s old or over 60 s
        ahead.
    """
    signature, timestamp = _well_formed(signature, timestamp)
    if not re.fullmatch("v1=[0-9a-f]{64}", signature):
        raise InvalidSignatureError(f"The header {SIGNATURE_HEADER} is not 'v1=' and 64 hexadecimal digits.")
    _check_age(timestamp, now)


def _well_formed(signature: str | None, timestamp: str | None) -> tuple[str, str]:
    if signature is None or timestamp is None:
        missing = SIGNATURE_HEADER if signature is None else TIMESTAMP_HEADER
        raise InvalidSignatureError(f"The header {missing} is missing.")
    if not re.fullmatch(r"\d{1,11}", timestamp, re.ASCII):
        raise InvalidSignatureError(f"The header {TIMESTAMP_HEADER} is not a number of seconds.")
    return signature, timestamp


def _check_age(timestamp: str, now: datetime | None) -> None:
    age = (now or datetime.now(UTC)) - datetime.fromtimestamp(int(timestamp), UTC)
    if age > MAX_AGE:
        raise InvalidSignatureError(
            f"The delivery is {age.total_seconds():.0f} s old, allowed are 300 s: check the clock of this machine."
        )
    if -age > MAX_LEAD:
        raise InvalidSignatureError(
            f"The delivery is {-age.total_seconds():.0f} s ahead of the clock of this machine, allowed are 60 s: "
            "check that clock."
        )
