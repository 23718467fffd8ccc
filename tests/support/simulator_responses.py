"""What answers of the simulated API are asked for."""

from __future__ import annotations

import httpx


def error(response: httpx.Response, status: int) -> dict:
    """The error of an answer that is the API's envelope and nothing else."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    envelope = response.json()
    assert list(envelope) == ["error"]
    assert envelope["error"]["message"]
    return envelope["error"]


def complaints(response: httpx.Response) -> set[str]:
    """The fields that a 400 names."""
    body = error(response, 400)
    assert body["code"] == "invalid_request"
    assert all(detail["issue"] for detail in body["details"])
    return {detail["field"] for detail in body["details"]}
