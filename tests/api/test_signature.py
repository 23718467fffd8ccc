from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from planasonix_provider.api.signature import InvalidSignatureError, sign, verify

SECRET = SecretStr("whsec_01jq8secretxxxxxxxxxxxxxxxx")
OTHER = SecretStr("whsec_01jq8newsecretyyyyyyyyyyyyy")
SENT = 1743085501
NOW = datetime.fromtimestamp(SENT, UTC)
BODY = b'{"id": "evt_1"}'
VECTORS = json.loads((Path(__file__).parent.parent / "data" / "webhook_signatures.json").read_text())


def check(**changes: Any) -> None:
    """Verify a valid delivery, with some changes."""
    delivery = {
        "body": BODY,
        "signature": sign(BODY, SECRET, SENT),
        "timestamp": str(SENT),
        "secrets": [SECRET],
        "now": NOW,
        **changes,
    }
    verify(delivery.pop("body"), **delivery)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["body"][:20] or "no body")
def test_signs_as_openssl_does(vector: dict[str, Any]) -> None:
    assert sign(vector["body"].encode(), SecretStr(vector["secret"]), vector["timestamp"]) == vector["signature"]


@given(body=st.binary(max_size=200), secret=st.text(min_size=1), sent=st.integers(0, 4_000_000_000))
def test_accepts_a_signed_body_but_not_a_changed_one(body: bytes, secret: str, sent: int) -> None:
    try:
        secret.encode()
    except UnicodeEncodeError:
        return
    signature = sign(body, SecretStr(secret), sent)
    arguments: dict[str, Any] = {
        "signature": signature,
        "timestamp": str(sent),
        "secrets": [SecretStr(secret)],
        "now": datetime.fromtimestamp(sent, UTC),
    }
    verify(body, **arguments)
    with pytest.raises(InvalidSignatureError, match="fits no secret"):
        verify(body + b"x", **arguments)


def test_accepts_both_secrets_during_a_rotation() -> None:
    for order in ([SECRET, OTHER], [OTHER, SECRET]):
        check(secrets=order)
    with pytest.raises(InvalidSignatureError, match="fits no secret"):
        check(secrets=[OTHER])


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (timedelta(seconds=300), None),
        (timedelta(seconds=301), "is 301 s old, allowed are 300 s: check the clock"),
        (timedelta(seconds=-60), None),
        (timedelta(seconds=-61), "is 61 s ahead of the clock of this machine, allowed are 60 s: check that clock"),
    ],
)
def test_refuses_a_timestamp_in_the_past_or_the_future(age: timedelta, words: str | None) -> None:
    if words is None:
        check(now=NOW + age)
    else:
        with pytest.raises(InvalidSignatureError, match=words):
            check(now=NOW + age)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"signature": None}, "X-Planasonix-Signature is missing"),
        ({"timestamp": None}, "X-Planasonix-Timestamp is missing"),
        ({"timestamp": ""}, "is not a number of seconds"),
        ({"timestamp": "soon"}, "is not a number of seconds"),
        ({"timestamp": "-1743085501"}, "is not a number of seconds"),
        ({"timestamp": "1743085501.5"}, "is not a number of seconds"),
        ({"timestamp": "\uff19"}, "is not a number of seconds"),
        ({"timestamp": "9" * 400}, "is not a number of seconds"),
        ({"timestamp": "99999999999"}, "fits no secret"),
        ({"timestamp": str(SENT + 1)}, "fits no secret"),
        ({"signature": ""}, "fits no secret"),
        ({"signature": "v1=größe"}, "fits no secret"),
        ({"signature": sign(BODY, SECRET, SENT).upper()}, "fits no secret"),
        ({"signature": sign(BODY, SECRET, SENT).removeprefix("v1=")}, "fits no secret"),
        ({"body": b""}, "fits no secret"),
    ],
)
def test_refuses_missing_malformed_or_forged_headers(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSignatureError, match=words) as refusal:
        check(**changes)
    assert SECRET.get_secret_value() not in str(refusal.value)
    assert "evt_1" not in str(refusal.value)


def test_requires_a_secret() -> None:
    with pytest.raises(ValueError, match="secrets: got none"):
        check(secrets=[])
