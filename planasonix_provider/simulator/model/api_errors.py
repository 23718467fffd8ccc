"""Errors of the simulated API, without HTTP."""

from __future__ import annotations

from collections.abc import Sequence

from planasonix_provider.api.models import ErrorDetail


class ApiError(Exception):
    """An error that the API returns.

    ``details`` name the invalid fields of an ``invalid_request``; ``existing_job_id`` is the active job of a
    ``sync_in_progress``.
    """

    def __init__(
        self, code: str, message: str, *, details: Sequence[ErrorDetail] = (), existing_job_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.existing_job_id = existing_job_id


def invalid_field(field: str, issue: str) -> ApiError:
    return ApiError("invalid_request", f"{field}: {issue}", details=[ErrorDetail(field=field, issue=issue)])
