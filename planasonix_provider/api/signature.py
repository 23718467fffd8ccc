"""Signs and verifies the bodies of webhook deliveries. No I/O; nothing of a body is decoded before it is verified.

The scheme: HMAC-SHA256 over ``{timestamp}.{raw body}``, or over ``{timestamp}`` alone where the body is empty, keyed by
the UTF-8 of the secret as it is shown; ``X-Planasonix-Timestamp`` holds Unix seconds, ``X-Planasonix-Signature`` is
``v1=`` and lower-case hex.
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

#: How old a delivery may be.
MAX_AGE = timedelta(seconds=300)
#: How far a delivery's time may be ahead of ours, for no two clocks agree.
MAX_LEAD = timedelta(seconds=60)


class InvalidSignatureError(ValueError):
    """A delivery that cannot be trusted; the message says why, and holds neither secret nor body."""


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
    """Check that a delivery comes from whoever has a secret, and is not an old one sent again.

    :param body: the raw body, as it came over the wire.
    :param signature: the header ``X-Planasonix-Signature``, or ``None`` where there is none.
    :param timestamp: the header ``X-Planasonix-Timestamp``, or ``None`` where there is none.
    :param secrets: the signing secrets that may have been used: two while one is being rotated.
    :param now: the time; default: this machine's.
    :raises InvalidSignatureError: if a header is missing or malformed, the delivery is over 300 s old or over 60 s
        ahead, or no secret fits.
    :raises ValueError: if there is no secret to check by.
    """
    known = list(secrets)
    if not known:
        raise ValueError("secrets: got none, allowed is at least one.")
    signature, timestamp = _well_formed(signature, timestamp)
    # All of them, and each in constant time: how long it takes tells nothing of which one fits, or how nearly.
    fits = [hmac.compare_digest(sign(body, secret, int(timestamp)).encode(), signature.encode()) for secret in known]
    if not any(fits):
        raise InvalidSignatureError(
            f"The header {SIGNATURE_HEADER} fits no secret: check that the secret is that of the webhook which sends "
            "here, and was not rotated since."
        )
    _check_age(timestamp, now)


def check_headers(*, signature: str | None, timestamp: str | None, now: datetime | None = None) -> None:
    """Check what can be checked of a delivery before its body is read: :func:`verify` would refuse it anyway.

    :param signature: the header ``X-Planasonix-Signature``, or ``None`` where there is none.
    :param timestamp: the header ``X-Planasonix-Timestamp``, or ``None`` where there is none.
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
