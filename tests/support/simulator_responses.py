"""Checks of the simulated API's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from planasonix_provider.simulator.model.api_errors import ApiError


def error(response: httpx.Response, status: int) -> dict:
    """Return the error of a response that is exactly the API's error envelope."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    envelope = response.json()
    assert list(envelope) == ["error"]
    assert envelope["error"]["message"]
    return envelope["error"]


@contextmanager
def raises_api_error(code: str) -> Iterator[pytest.ExceptionInfo[ApiError]]:
    """Expect the error of a workspace that the API returns with this code."""
    with pytest.raises(ApiError) as caught:
        yield caught
    assert caught.value.code == code


def invalid_fields(response: httpx.Response) -> set[str]:
    """Return the fields that a 400 names."""
    body = error(response, 400)
    assert body["code"] == "invalid_request"
    assert all(detail["issue"] for detail in body["details"])
    return {detail["field"] for detail in body["details"]}
