"""What the API refuses, as one exception that knows nothing of HTTP."""

from __future__ import annotations

from collections.abc import Sequence

from planasonix_provider.api.models import ErrorDetail


class ApiError(Exception):
    """The API says no.

    :param code: the API's error code, as ``not_found``.
    :param message: what is wrong, for a person.
    :param details: for ``invalid_request``, which fields are wrong, and what is wrong with each.
    :param existing_job_id: for ``sync_in_progress``, the job in the way.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        details: Sequence[ErrorDetail] = (),
        existing_job_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.existing_job_id = existing_job_id


def invalid(field: str, issue: str) -> ApiError:
    """Refuse one field.

    :param field: its name.
    :param issue: what is wrong with it.
    :return: the refusal, to be raised.
    """
    return ApiError("invalid_request", f"{field}: {issue}", details=[ErrorDetail(field=field, issue=issue)])
