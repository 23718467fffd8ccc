"""The exit codes of the command line."""

from __future__ import annotations

from planasonix_provider.api.errors import (
    PlanasonixError,
    PlanasonixJobCancelledError,
    PlanasonixJobFailedError,
    PlanasonixLostTrackError,
    PlanasonixOutageError,
    PlanasonixTimeoutError,
)

#: The command succeeded; with ``--wait``, so did the job or the backfill.
EXIT_OK = 0
#: Planasonix refused the request or was unreachable, or the Airflow connection is invalid.
EXIT_ERROR = 1
#: The command line is invalid.
EXIT_USAGE = 2
#: With ``--wait``: the job or the backfill failed.
EXIT_FAILED = 3
#: With ``--wait``: the job or the backfill was cancelled.
EXIT_CANCELLED = 4
#: The timeout passed first.
EXIT_TIMEOUT = 5
#: It is unknown whether something was started, or how it ended. Check before starting it again.
EXIT_UNKNOWN = 6
#: Plus the number of the signal, as in shells: 130 for Ctrl-C, 143 for SIGTERM.
EXIT_SIGNAL = 128
#: The reader of a pipe is gone; shells report the same for SIGPIPE.
EXIT_BROKEN_PIPE = EXIT_SIGNAL + 13

_CODES: dict[type[PlanasonixError], int] = {
    PlanasonixJobFailedError: EXIT_FAILED,
    PlanasonixJobCancelledError: EXIT_CANCELLED,
    PlanasonixTimeoutError: EXIT_TIMEOUT,
    PlanasonixLostTrackError: EXIT_UNKNOWN,
    PlanasonixOutageError: EXIT_UNKNOWN,
}


def exit_code(error: PlanasonixError) -> int:
    """Return the exit code for an error."""
    return _CODES.get(type(error), EXIT_ERROR)
