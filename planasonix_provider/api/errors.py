"""Everything that can go wrong with Planasonix, in kinds that a person can act on.

Each message says what was asked, what came back, and what to do. ``kind`` is the word that travels from a trigger
to its task, where :func:`error_of` makes the same error of it again.
"""

from __future__ import annotations

from contextlib import suppress
from typing import ClassVar

#: The attributes by which an exception names the work that it is about; each is ``None`` if it is not known.
DETAILS = ("job_id", "backfill_id", "job_url", "connection_id", "code")
#: What messages call the Airflow connection where its id is not known; see :attr:`.Account.connection`.
THE_CONNECTION = "the Airflow connection"


class PlanasonixError(Exception):
    """Base of all that this package raises about Planasonix.

    :param message: what was asked, what came back, and what to do; never holds the API key.
    """

    kind: ClassVar[str] = "planasonix"

    #: The job; of a backfill, the first job that failed, or else its first job.
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
        """The error's text."""
        return str(self.args[0])

    def with_message(self, message: str) -> None:
        """Say it otherwise, and stay the same error.

        :param message: the new text.
        """
        self.args = (message,)


class PlanasonixResponseError(PlanasonixError):
    """The API answered, and the answer is no success.

    :param message: what was asked, what came back, and what to do.
    :param status: the HTTP status, or ``None`` where it is no longer known.
    :param code: the API's own error code, where the answer had one.
    :param fields: for a 400, the fields that the API complained of.
    :param request_id: what the API calls this request, where the answer said so.
    :param retry_after: for how many seconds the API asks to be left alone, where the answer said so.
    :param existing_job_id: for a 409, the job in the way, where the answer named it.
    :param has_envelope: whether the body was the API's own ``{"error": {…}}``. If not, a proxy may have answered in the
        API's place.
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
    """401: the key is missing, wrong or revoked."""

    kind = "authentication"


class PlanasonixPermissionError(PlanasonixResponseError):
    """403 in the API's envelope: the key lacks a scope, or its caller is not on the IP allowlist."""

    kind = "permission"


class PlanasonixNotFoundError(PlanasonixResponseError):
    """404 in the API's envelope: there is no such thing, or this key does not see it."""

    kind = "not_found"


class PlanasonixValidationError(PlanasonixResponseError):
    """400 in the API's envelope: the API refuses what was sent, and names the fields."""

    kind = "validation"


class PlanasonixConflictError(PlanasonixResponseError):
    """409: something is in the way, as a sync that already runs."""

    kind = "conflict"


class PlanasonixRateLimitError(PlanasonixResponseError):
    """429: too many requests for this key or workspace."""

    kind = "rate_limit"


class PlanasonixServerError(PlanasonixResponseError):
    """5xx: the API, or something before it, has a fault."""

    kind = "server"


class PlanasonixTransportError(PlanasonixError):
    """No answer: the connection could not be made, broke, or timed out.

    :param message: what was asked, what came back, and what to do.
    :param sent: whether the request may have reached the API. ``False`` means that it surely has not.
    :param is_unreachable: whether nothing was reached at the host: no such host, connection refused or timed out, no
        TLS. The host may be mistyped.
    """

    kind = "transport"

    def __init__(self, message: str, *, sent: bool = True, is_unreachable: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.is_unreachable = is_unreachable


class PlanasonixUnreadableError(PlanasonixError):
    """An answer of success that is no JSON, or not what the reference says; or any that is too large to be read."""

    kind = "unreadable"


class PlanasonixConfigurationError(PlanasonixError):
    """The Airflow connection is missing, or something in it makes no sense."""

    kind = "configuration"


class PlanasonixJobFailedError(PlanasonixError):
    """The job ended as failed.

    :param message: the job, and the API's code and message.
    :param code: the API's error code, where the job has one.
    """

    kind = "job_failed"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class PlanasonixJobCancelledError(PlanasonixError):
    """The job ended as cancelled."""

    kind = "job_cancelled"


class PlanasonixLostTrackError(PlanasonixError):
    """Nobody knows what became of the work: it may run, have ended, or never have begun. A repeat could double it."""

    kind = "lost_track"


class PlanasonixOutageError(PlanasonixError):
    """The API was out of reach for so long that whoever waited for it gave up. A later try goes on with the work."""

    kind = "outage"


class PlanasonixTimeoutError(PlanasonixError):
    """The job was not over in time."""

    kind = "out_of_time"


#: The error for each HTTP status that has a kind of its own; every 5xx is a :class:`PlanasonixServerError`.
BY_STATUS: dict[int, type[PlanasonixResponseError]] = {
    400: PlanasonixValidationError,
    401: PlanasonixAuthenticationError,
    403: PlanasonixPermissionError,
    404: PlanasonixNotFoundError,
    409: PlanasonixConflictError,
    429: PlanasonixRateLimitError,
}

#: Statuses that say something about the request only in the API's own envelope. A proxy that restarts answers so, too.
_ONLY_IN_AN_ENVELOPE = frozenset({400, 403, 404})

_KINDS: tuple[type[PlanasonixError], ...] = (
    PlanasonixResponseError,
    *BY_STATUS.values(),
    PlanasonixServerError,
    PlanasonixTransportError,
    PlanasonixUnreadableError,
    PlanasonixConfigurationError,
    PlanasonixJobFailedError,
    PlanasonixJobCancelledError,
    PlanasonixLostTrackError,
    PlanasonixOutageError,
    PlanasonixTimeoutError,
)
_BY_KIND = {error.kind: error for error in _KINDS}


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
    """Make the error again that another process met.

    :param kind: the ``kind`` of the error's class; one that this version does not know gives the base class.
    :param message: the error's message.
    :param code: the API's own error code, if there was one.
    :return: the error, to be raised.
    """
    error = _BY_KIND.get(kind, PlanasonixError)(message)
    error.code = code
    return error


def add_details(exception: BaseException, **details: str | None) -> None:
    """Set the attributes of an exception by which a callback of Airflow's finds the work.

    An attribute that is set already stays as it is. The cause's attributes win over the details.

    :param exception: any exception that ends a task.
    :param details: values by the names in :data:`DETAILS`.
    """
    for name in DETAILS:
        values = (getattr(exception, name, None), getattr(exception.__cause__, name, None), details.get(name))
        # An exception of another package may have slots, or a property of that name.
        with suppress(AttributeError, TypeError):
            setattr(exception, name, next((value for value in values if value is not None), None))
