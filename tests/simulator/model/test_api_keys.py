from __future__ import annotations

from threading import RLock

import pytest

from planasonix_provider.simulator.model.api_errors import ApiError
from planasonix_provider.simulator.model.api_keys import ApiKeys
from planasonix_provider.simulator.model.journal import Journal


@pytest.fixture
def keys() -> ApiKeys:
    keys = ApiKeys(Journal(), RLock())
    keys.add("plnx_1")
    return keys


@pytest.mark.parametrize("header", ["Bearer plnx_1", "bearer plnx_1", "Bearer  plnx_1"])
def test_known_key(keys, header):
    assert keys.authenticate(header).value == "plnx_1"


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (None, "missing"),
        ("", "Bearer KEY"),
        ("plnx_1", "Bearer KEY"),
        ("Basic plnx_1", "Bearer KEY"),
        ("Bearer ", "Bearer KEY"),
        ("Bearer plnx_2", "unknown"),
    ],
)
def test_no_valid_key(keys, header, said):
    with pytest.raises(ApiError, match=said) as caught:
        keys.authenticate(header)
    assert caught.value.code == "unauthorized"


def test_revoked_key(keys):
    keys.revoke("plnx_1")
    with pytest.raises(ApiError, match="revoked"):
        keys.authenticate("Bearer plnx_1")


def test_revoking_an_unknown_key(keys):
    with pytest.raises(ApiError, match="no such key"):
        keys.revoke("plnx_2")


def test_scope(keys):
    key = keys.add(scopes=["jobs:read"])
    key.require("jobs:read")
    key.require(None)
    with pytest.raises(ApiError, match="jobs:write"):
        key.require("jobs:write")


@pytest.mark.parametrize("value", ["", "two words", " padded", "schlüssel"])
def test_bad_value_is_not_repeated(keys, value):
    with pytest.raises(ValueError, match=r"^value: allowed is one word of ASCII characters.$"):
        keys.add(value)


def test_unknown_scope(keys):
    with pytest.raises(ValueError, match=r"scopes: got .*coffee.*jobs:read"):
        keys.add(scopes=["coffee"])
