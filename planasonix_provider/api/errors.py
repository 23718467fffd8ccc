"""The errors of this package.

A message says what was requested, what came back, and what to do. Triggers send an error's ``kind`` to their
task, where :func:`error_of` creates the same error.
"""

from __future__ import annotations

from contextlib import suppress
from typing import ClassVar

#: The attributes of an exception that identify its work; ``None`` if unknown.
DETAILS = ("job_id", "backfill_id", "job_url", "connection_id", "code")
#: How messages name the Airflow connection if its id is unknown; see :attr:`.ClientConfig.connection`.
THE_CONNECTION = "the Airflow connection"


class PlanasonixError(Exception):
    """Base of all errors of this package.

    :param message: the request, the response, and what to do; never contains the API key.
    """

    kind: ClassVar[str] = "planasonix"

    #: The job; for a backfill, its first failed job, or else its first job.
    job_id: str | None = None
    #: The backfill.
    backfill_id: str | None = None
    #: The job's page in Planasonix's web app.
    job_url: str | None = None
    #: Planasonix's connection that the work loads.
    connection_id: str | None = None
    #: Planasonix's own error code.
    code: str | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)

    @property
    def message(self) -> str:
        """The text of the error."""
        return str(self.args[0])

    def set_message(self, message: str) -> None:
        """Replace the message of this error."""
        self.args = (message,)


class PlanasonixResponseError(PlanasonixError):
    """The response is not a success.

    :param message: the request, the response, and what to do.
    :param status: the HTTP status, or ``None`` if it is no longer known.
    :param code: the API's error code, if the response has one.
    :param fields: for a 400, the invalid fields.
    :param request_id: the API's id of this request, if the response has one.
    :param retry_after: the seconds of ``Retry-After``, if the response has one.
    :param existing_job_id: for a 409, the conflicting job, if the response names it.
    :param has_envelope: whether the body was the API's own ``{"error": {…}}``. If not, a proxy may have responded.
    """

    kind = "response"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        fields: tuple[str, ...] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
        existing_job_id: str | None = None,
        has_envelope: bool = True,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.fields = fields
        self.request_id = request_id
        self.retry_after = retry_after
        self.existing_job_id = existing_job_id
        self.has_envelope = has_envelope


class PlanasonixAuthenticationError(PlanasonixResponseError):
    """401: the API key is missing, wrong or revoked."""

    kind = "authentication"


class PlanasonixPermissionError(PlanasonixResponseError):
    """403 in the API's envelope: the key lacks a scope, or its caller is not on the IP allowlist."""

    kind = "permission"


class PlanasonixNotFoundError(PlanasonixResponseError):
    """404 in the API's envelope: the resource does not exist, or this key cannot see it."""

    kind = "not_found"


class PlanasonixValidationError(PlanasonixResponseError):
    """400 in the API's envelope: the request is invalid."""

    kind = "validation"


class PlanasonixConflictError(PlanasonixResponseError):
    """409: a conflict, for example with a sync that already runs."""

    kind = "conflict"


class PlanasonixRateLimitError(PlanasonixResponseError):
    """429: too many requests for this key or workspace."""

    kind = "rate_limit"


class PlanasonixServerError(PlanasonixResponseError):
    """5xx: a fault of the API, or of a proxy before it."""

    kind = "server"


class PlanasonixTransportError(PlanasonixError):
    """No response: the connection could not be made, broke, or timed out.

    :param message: the request, the response, and what to do.
    :param sent: whether the request may have reached the API; ``False`` if it certainly has not.
    :param is_unreachable: whether the host could not be reached: unknown host, connection refused or timed out, no TLS.
        Its name may be misspelt.
    """

    kind = "transport"

    def __init__(self, message: str, *, sent: bool = True, is_unreachable: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.is_unreachable = is_unreachable


class PlanasonixUnreadableError(PlanasonixError):
    """A successful response that is not JSON or not what the reference says, or any response that is too large."""

    kind = "unreadable"


class PlanasonixConfigurationError(PlanasonixError):
    """The Airflow connection is missing or invalid."""

    kind = "configuration"


class PlanasonixJobFailedError(PlanasonixError):
    """The job failed.

    :param message: the job, and the API's code and message.
    :param code: the API's error code, if the job has one.
    """

    kind = "job_failed"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class PlanasonixJobCancelledError(PlanasonixError):
    """The job was cancelled."""

    kind = "job_cancelled"


class PlanasonixLostTrackError(PlanasonixError):
    """The state of the work is unknown: it may run, have ended, or never have started. A retry could duplicate it."""

    kind = "lost_track"


class PlanasonixOutageError(PlanasonixError):
    """The API was unreachable for so long that the wait gave up. A later try continues with the work."""

    kind = "outage"


class PlanasonixTimeoutError(PlanasonixError):
    """The job did not end in time."""

    kind = "out_of_time"


#: The error of each HTTP status that has its own; every 5xx is a :class:`PlanasonixServerError`.
BY_STATUS: dict[int, type[PlanasonixResponseError]] = {
    400: PlanasonixValidationError,
    401: PlanasonixAuthenticationError,
    403: PlanasonixPermissionError,
    404: PlanasonixNotFoundError,
    409: PlanasonixConflictError,
    429: PlanasonixRateLimitError,
}

#: A proxy that restarts sends these statuses, too. They mean something only in the API's own envelope.
_ONLY_IN_AN_ENVELOPE = frozenset({400, 403, 404})

_BY_KIND: dict[str, type[PlanasonixError]] = {
    error.kind: error
    for error in list(globals().values())
    if isinstance(error, type) and issubclass(error, PlanasonixError)
}


def error_for_status(status: int, *, has_envelope: bool = True) -> type[PlanasonixResponseError]:
    """Return the error class of an HTTP status.

    :param status: an HTTP status that is no success.
    :param has_envelope: whether the body was the API's own error envelope.
    :return: the class to raise; the base :class:`PlanasonixResponseError` for a status that the reference lacks, and
        for a 400, 403 or 404 that may be a proxy's.
    """
    if not has_envelope and status in _ONLY_IN_AN_ENVELOPE:
        return PlanasonixResponseError
    return PlanasonixServerError if status >= 500 else BY_STATUS.get(status, PlanasonixResponseError)


def error_of(kind: str, message: str, code: str | None = None) -> PlanasonixError:
    """Return the error that another process raised.

    :param kind: the ``kind`` of its class; an unknown one creates the base class.
    :param message: its message.
    :param code: the API's error code, if there was one.
    :return: the error.
    """
    error = _BY_KIND.get(kind, PlanasonixError)(message)
    error.code = code
    return error


def add_details(exception: BaseException, **details: str | None) -> None:
    """Set the attributes of an exception by which Airflow's callbacks find the work.

    Attributes that are set already stay. The cause's attributes take precedence over ``details``.
    """
    for name in DETAILS:
        values = (getattr(exception, name, None), getattr(exception.__cause__, name, None), details.get(name))
        # Other exceptions may have slots, or a property of that name.
        with suppress(AttributeError, TypeError):
            setattr(exception, name, next((value for value in values if value is not None), None))
