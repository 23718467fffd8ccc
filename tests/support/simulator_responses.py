"""Checks of the simulated API's errors."""

from __future__ import annotations

import httpx


def error(response: httpx.Response, status: int) -> dict:
    """Return the error of a response that is exactly the API's error envelope."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    envelope = response.json()
    assert list(envelope) == ["error"]
    assert envelope["error"]["message"]
    return envelope["error"]


def invalid_fields(response: httpx.Response) -> set[str]:
    """Return the fields that a 400 names."""
    body = error(response, 400)
    assert body["code"] == "invalid_request"
    assert all(detail["issue"] for detail in body["details"])
    return {detail["field"] for detail in body["details"]}
